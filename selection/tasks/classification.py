"""One class a sample."""

import math
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.loaders.stream import Batch, SuperBatch
from rhostream.selection.tasks.task import Task, logits_of, tells_logits


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """Classes that exclude each other: labels int64 (n,), outputs logits (n, C), the loss cross-entropy in nats.

    Attributes:
        label_smoothing: as of `torch.nn.functional.cross_entropy`.

    Raises:
        ConfigError: a smoothing outside [0, 1].
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing <= 1:
            raise ConfigError(f"label smoothing {self.label_smoothing}: give a number from 0 to 1")

    @property
    def gives_logits(self) -> bool:
        return self.criterion is None

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """As of `Task`; ConfigError for candidates of a multi-label corpus, whose targets cross-entropy would take."""
        if self.criterion is None and isinstance(batch, SuperBatch) and batch.candidates.multi_label:
            raise ConfigError(
                "the corpus is multi-label, and the task Classification takes one class a sample: give "
                "task=MultiLabel(), or a criterion of your own"
            )
        return super().losses(outputs, batch)

    def guess(self, classes: int) -> float:
        return math.log(classes)

    def correct(self, outputs: Any, batch: Batch) -> Tensor | None:
        if not tells_logits(outputs) or batch.labels.dim() != 1:
            return None
        logits = logits_of(outputs)
        return logits.argmax(dim=1) == batch.labels if logits.dim() == 2 else None

    def _losses(self, outputs: Any, batch: Batch) -> Tensor:
        logits, labels = logits_of(outputs), batch.labels
        highest = int(labels.max()) if len(labels) else 0
        # Told here, as on a GPU the loss would end the process's use of it.
        if logits.dim() != 2 or logits.shape[1] <= highest:
            raise ConfigError(
                f"the model gave outputs of shape {tuple(logits.shape)} for {len(labels)} samples with labels up to "
                f"{highest}: it must give one number a sample and class, (n, classes)"
            )
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
