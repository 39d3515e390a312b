"""Image-text pairs, whose loss depends on the batch that they are in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.loaders.reference import ContrastiveLoss, require_contrastive
from rhostream.loaders.stream import Batch, Exchange
from rhostream.selection.tasks.over_ranks import over_ranks
from rhostream.selection.tasks.pair_embeddings import PairEmbeddings
from rhostream.selection.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Pairs(Task):
    """Images and their texts, for two-tower models: the loss of a pair is its part in the contrastive loss of a batch.

    A model is called with `batch.images` and `batch.tokens`, a mapping with `input_ids` and `attention_mask`; what it
    has to give, `PairEmbeddings.of` says. Models that are called otherwise take a `forward`.

    Attributes:
        loss: "sigmoid" (SigLIP) or "softmax" (CLIP), see `PairEmbeddings.losses`.
        exchange: of a job whose ranks share each batch out: losses are then of a rank's own pairs in the batch of all,
            see `over_ranks`, and all ranks ask for them in step. None where each batch is whole.

    Raises:
        ConfigError: another loss.
    """

    loss: ContrastiveLoss = "sigmoid"
    exchange: Exchange | None = None

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
        pairs, own = self._of_all(outputs)
        return pairs.finds_own(own)

    def _losses(self, outputs: Any, batch: Batch) -> Tensor:
        pairs, own = self._of_all(outputs)
        return pairs.losses(self.loss, own)

    def _of_all(self, outputs: Any) -> tuple[PairEmbeddings, slice]:
        """The pairs of the whole batch, and which of them these outputs are of."""
        pairs = PairEmbeddings.of(outputs)
        return (pairs, slice(None)) if self.exchange is None else over_ranks(pairs, self.exchange)
