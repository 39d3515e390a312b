"""Which stored samples to read: images or texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

#: Some of n rows: their numbers, int64 (m,), in any order, or a slice.
Positions = npt.NDArray[np.int64] | slice


@dataclass(frozen=True, kw_only=True)
class StoredRefs:
    """Where one stored field of n samples lies, in the order in which it is wanted.

    Attributes:
        tars: the tars they lie in (`Shard.tar`).
        numbers: int32 (n,), which of `tars` holds each one.
        offsets, sizes: int64 (n,), bytes.
        hashes: the `content_hash` that each one must have, length n; None compares nothing.
        augmentation_seeds: the text that decides each image's augmentation, length n; None where there is none.
    """

    tars: Sequence[str]
    numbers: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    hashes: Sequence[str] | None = None
    augmentation_seeds: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def take(self, positions: Positions) -> "StoredRefs":
        """Those at these positions, in this order."""
        seeds = self.augmentation_seeds
        return StoredRefs(
            tars=self.tars,
            numbers=self.numbers[positions],
            offsets=self.offsets[positions],
            sizes=self.sizes[positions],
            hashes=None if self.hashes is None else take_texts(self.hashes, positions),
            augmentation_seeds=None if seeds is None else take_texts(seeds, positions),
        )

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> "StoredRefs":
        """One part after the other."""
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0, *(len(part.tars) for part in parts)])
        return cls(
            tars=[tar for part in parts for tar in part.tars],
            numbers=np.concatenate([part.numbers + np.int32(starts[i]) for i, part in enumerate(parts)]),
            offsets=np.concatenate([part.offsets for part in parts]),
            sizes=np.concatenate([part.sizes for part in parts]),
            hashes=_joined([part.hashes for part in parts]),
            augmentation_seeds=_joined([part.augmentation_seeds for part in parts]),
        )


def take_texts(texts: Any, positions: Positions) -> Any:
    """The texts at these positions, in this order.

    Args:
        texts: a list, an Arrow array (which takes a third of a list's memory) or a NumPy array of objects.

    Returns:
        A list, of positions; of a slice the same kind as `texts`.
    """
    if isinstance(positions, slice):
        return texts[positions]
    if not len(positions):
        return []
    if isinstance(texts, np.ndarray):
        return texts[positions].tolist()
    if not hasattr(texts, "to_pylist"):
        return [texts[position] for position in positions.tolist()]
    import pyarrow as pa  # here, so that processes which only decode do not load it

    # Arrow's own conversion of a NumPy array imports pandas where it is installed: a second, before the first batch.
    buffer = pa.py_buffer(np.ascontiguousarray(positions, np.int64))
    return texts.take(pa.Array.from_buffers(pa.int64(), len(positions), [None, buffer])).to_pylist()


def _joined(columns: Sequence[Sequence[str] | None]) -> list[str] | None:
    """None where any part has none."""
    present = [column for column in columns if column is not None]
    return [text for column in present for text in column] if len(present) == len(columns) else None
