"""Which stored images to read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class ImageRefs:
    """n stored images, in the order in which their pixels are wanted.

    Attributes:
        tars: the tars they lie in (`Shard.tar`).
        numbers: int32 (n,), which of `tars` holds each image.
        offsets, sizes: int64 (n,), bytes.
        hashes: the `content_hash` that each image must have, length n; None compares nothing.
        draws: the text that decides each image's augmentation, length n; None where there is none.
    """

    tars: Sequence[str]
    numbers: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    hashes: Sequence[str] | None = None
    draws: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def take(self, positions: npt.NDArray[np.int64]) -> "ImageRefs":
        """Those at these positions, in this order."""
        return ImageRefs(
            tars=self.tars,
            numbers=self.numbers[positions],
            offsets=self.offsets[positions],
            sizes=self.sizes[positions],
            hashes=None if self.hashes is None else [self.hashes[position] for position in positions],
            draws=None if self.draws is None else [self.draws[position] for position in positions],
        )

    @classmethod
    def concatenated(cls, parts: Sequence[Self]) -> "ImageRefs":
        """All of them, one part after the other."""
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0, *(len(part.tars) for part in parts)])
        return cls(
            tars=[tar for part in parts for tar in part.tars],
            numbers=np.concatenate([part.numbers + np.int32(starts[i]) for i, part in enumerate(parts)]),
            offsets=np.concatenate([part.offsets for part in parts]),
            sizes=np.concatenate([part.sizes for part in parts]),
            hashes=_joined([part.hashes for part in parts]),
            draws=_joined([part.draws for part in parts]),
        )


def _joined(columns: Sequence[Sequence[str] | None]) -> list[str] | None:
    """None where any part has none."""
    present = [column for column in columns if column is not None]
    return [text for column in present for text in column] if len(present) == len(columns) else None
