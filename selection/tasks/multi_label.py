"""Any number of classes a sample."""

import math
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from rhostream.loaders.stream import Batch
from rhostream.selection.tasks.task import Task, logits_of, tells_logits


@dataclass(frozen=True, kw_only=True)
class MultiLabel(Task):
    """Classes of which each is there or not: labels bool or float (n, C), outputs logits (n, C).

    Streams of multi-label corpora give such labels. The loss is the binary cross-entropy, nats, mean over the classes.
    A sample is correct where every class is.
    """

    def guess(self, classes: int) -> float:
        return math.log(2)

    def correct(self, outputs: Any, batch: Batch) -> Tensor | None:
        if not tells_logits(outputs):
            return None
        return ((logits_of(outputs) > 0) == (batch.labels > 0.5)).all(dim=1)

    def _losses(self, outputs: Any, batch: Batch) -> Tensor:
        targets = batch.labels.float()
        return F.binary_cross_entropy_with_logits(logits_of(outputs), targets, reduction="none").mean(dim=1)
