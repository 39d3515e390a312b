"""A super-batch: what the stream hands to a selector."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from rhostream.loaders.view import View


@dataclass(frozen=True, kw_only=True, slots=True)
class PassedOver:
    """A candidate of a super-batch that is not among its images, and why (`rhostream.schema.UNSCORED_REASONS`)."""

    key: str
    shard: str
    row: int
    label: int
    il: float | None
    reason: str
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SuperBatch:
    """The candidates B_t of one step (arXiv 2206.07137, Algorithm 1, line 5), joined with their irreducible losses.

    Attributes:
        epoch: the epoch it belongs to.
        index: its position in the epoch, counted over all ranks.
        size: n_B that was asked for; an epoch's last super-batch may have been drawn shorter.
        state: for `CandidateStream.load_state_dict`: continues after this super-batch (and those of its round).
        keys, shards: names, length n.
        rows: int32 (n,), position in the shard.
        labels: int64 (n,).
        images: uint8 (n, C, H, W), the view's pixels; `view.normalise` makes them a model's input.
        il: float32 (n,), nats; None where the stream joins no IL table.
        extra: further columns of the index, (n,) each.
        passed_over: candidates drawn with these and not read, each with its reason.
    """

    epoch: int
    index: int
    size: int
    state: dict[str, Any]
    keys: list[str]
    shards: list[str]
    rows: npt.NDArray[np.int32]
    labels: torch.Tensor
    images: torch.Tensor
    il: torch.Tensor | None
    view: View
    extra: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    passed_over: tuple[PassedOver, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def drawn(self) -> int:
        """Candidates drawn from the order: those with images and those passed over."""
        return len(self.keys) + len(self.passed_over)

    def pin_memory(self) -> Self:
        """Page-locked tensors, for asynchronous copies to a GPU; `DataLoader(pin_memory=True)` calls this."""
        return self._tensors(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        return self._tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def _tensors(self, change: Any) -> Self:
        il = None if self.il is None else change(self.il)
        return replace(self, images=change(self.images), labels=change(self.labels), il=il)
