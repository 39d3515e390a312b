"""A super-batch: what the stream hands to a selector."""

import os
import weakref
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from rhostream.errors import ShardError
from rhostream.loaders.decode import Augmentation, ImageReader, ImageRefs, ImageSpec, PendingImages, ReadOptions
from rhostream.loaders.storage import Workspace


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


class Tolerance:
    """Counts the images of an epoch that cannot be read, and ends the run where there are more than are allowed."""

    def __init__(self, allowed: int) -> None:
        self._allowed, self._found = allowed, 0

    def count(self, key: str, shard: str, cause: str) -> None:
        """Raises ShardError where this one is one too many."""
        self._found += 1
        if self._found > self._allowed:
            raise ShardError(
                f"sample {key} of shard {shard} cannot be read ({cause}); {self._found} so far in this epoch, "
                f"{self._allowed} are allowed: the shard was damaged after it was written; restore it, or "
                "raise max_unreadable"
            )


@dataclass(frozen=True, kw_only=True)
class FullImages:
    """The full-size images behind a super-batch whose thumbnails was read; only those asked for are read.

    Attributes:
        spec: the pixels to make of them.
    """

    workspace: Workspace
    refs: ImageRefs
    spec: ImageSpec
    augmentation: Augmentation
    read_options: ReadOptions

    def reader(self) -> ImageReader:
        """What reads them in this process; hold it, so that it lives from one super-batch to the next."""
        return shared_reader(self.workspace, self.read_options)

    def submit(self, positions: npt.NDArray[np.int64]) -> PendingImages:
        """Begin to read those at these positions of the super-batch, before all candidates that wait."""
        return self.reader().submit(self.refs.take(positions), self.spec, self.augmentation, urgent=True)


@dataclass(frozen=True, kw_only=True)
class SuperBatch:
    """The candidates B_t of one step (arXiv 2206.07137, Algorithm 1, line 5), joined with their irreducible losses.

    Attributes:
        epoch: the epoch it belongs to.
        index: its number, counted over all ranks from where this pass over the epoch began.
        size: n_B that was asked for; an epoch's last super-batch may have been drawn shorter.
        state: for `CandidateStream.load_state_dict`: continues after this super-batch (and those of its round).
        keys, shards: names, length n.
        rows: int32 (n,), position in the shard.
        labels: int64 (n,).
        images: uint8 (n, C, H, W), channels last in memory: the pixels to score; `spec.normalize` makes them a model's
            input.
        il: float32 (n,), nats; None where the stream joins no IL table.
        extra: further columns of the index, (n,) each.
        passed_over: candidates drawn with these and not read, each with its reason.
        full: the images to train on, where `images` are those of thumbnails that is not exact; else None.
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
    spec: ImageSpec
    extra: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    passed_over: tuple[PassedOver, ...] = ()
    full: FullImages | None = None

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


_readers: "weakref.WeakValueDictionary[tuple[int, str, ReadOptions], ImageReader]" = weakref.WeakValueDictionary()


def shared_reader(workspace: Workspace, read_options: ReadOptions) -> ImageReader:
    """This process's reader of the workspace: one for all who hold it, ended with the last of them."""
    at = (os.getpid(), workspace.root, read_options)
    reader = _readers.get(at)
    if reader is None:
        reader = _readers[at] = ImageReader(workspace, read_options)
    return reader
