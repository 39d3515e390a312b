"""Image-text pairs, whose loss depends on the batch that they are in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.loaders.reference import ContrastiveLoss, require_contrastive
from rhostream.loaders.stream import Batch
from rhostream.selection.tasks.pair_embeddings import PairEmbeddings
from rhostream.selection.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Pairs(Task):
    """Images and their texts, for two-tower models: the loss of a pair is its part in the contrastive loss of a batch.

    A model is called with `batch.images` and `batch.tokens`, a mapping with `input_ids` and `attention_mask`; what it
    has to give, `PairEmbeddings.of` says. Models that are called otherwise take a `forward`.

    Attributes:
        loss: "sigmoid" (SigLIP) or "softmax" (CLIP), see `PairEmbeddings.losses`.

    Raises:
        ConfigError: another loss.
    """

    loss: ContrastiveLoss = "sigmoid"

    def __post_init__(self) -> None:
        require_contrastive(self.loss)

    def outputs(self, model: Callable[..., Any], batch: Batch) -> Any:
        if self.forward is not None:
            return self.forward(model, batch)
        return model(batch.images, batch.tokens)

    @property
    def gives_rows(self) -> bool:
        return False

    def guess(self, classes: int) -> float:
        raise ConfigError("pairs have no classes, and what a guess at them costs depends on the batch")

    def correct(self, outputs: Any, batch: Batch) -> Tensor | None:
        """bool (n,): is no other text of the batch more like the image than its own?"""
        return PairEmbeddings.of(outputs).finds_own()

    def _losses(self, outputs: Any, batch: Batch) -> Tensor:
        return PairEmbeddings.of(outputs).losses(self.loss)
