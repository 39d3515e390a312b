"""What the split of image-text pairs follows: a caption that several share, else the image."""

from collections.abc import Iterable, Set
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from rhostream.loaders.decode import normalized_hash
from rhostream.pipeline.shards.listing import Listing, Unit

#: Pairs that a caption keeps on one side of the split; of what more share, boilerplate mostly, each follows its image.
MOST_SHARED: Final = 100

_SLOTS: Final = 1 << 25  # of each of two tables of one byte, of which only what is used takes memory
_FULL: Final = np.iinfo(np.uint8).max


class CaptionCounts:
    """How many pairs share a caption, in 64 MB whatever their number: two tables of counts, of which the lower holds.

    From some ten million pairs on, a caption may seem more common than it is. The split then follows another of the
    two; what it must not part, `refuse_straddling` sees to.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((2, _SLOTS), np.uint8)

    def add(self, hashes: Iterable[str]) -> None:
        """Captions by their `normalized_hash`."""
        for counts, slots in zip(self._counts, _slots(list(hashes)), strict=True):
            found, more = np.unique(slots, return_counts=True)
            counts[found] = np.minimum(counts[found] + more, _FULL)

    def add_listing(self, listing: Listing) -> None:
        """The captions of its entries."""
        for table in listing.tables(["text"]):
            self.add(_hashes(table["text"].to_pylist()))

    def binding(self, hashes: Iterable[str]) -> frozenset[str]:
        """Those that the split follows: captions of several pairs, and not of too many."""
        distinct = sorted({*hashes})
        first, second = (counts[slots] for counts, slots in zip(self._counts, _slots(distinct), strict=True))
        count = np.minimum(first, second)
        return frozenset(np.array(distinct, np.object_)[(count > 1) & (count <= MOST_SHARED)].tolist())

    def bound(self, unit: Unit) -> Unit:
        """The unit, told which of its captions the split follows."""
        return replace(unit, binding=self.binding(_hashes(unit.rows["text"].to_pylist())))


def pair_identity(content_hash: str, text_hash: str, binding: Set[str]) -> bytes:
    """What the split of a pair follows.

    Args:
        content_hash, text_hash: as the index has them, of image and caption.
        binding: see `CaptionCounts.binding`.
    """
    return bytes.fromhex(text_hash if text_hash in binding else content_hash)


def _hashes(texts: Iterable[str | None]) -> list[str]:
    """Of those that have a word in them."""
    return [normalized_hash(text) for text in texts if text is not None and text.strip()]


def _slots(hashes: list[str]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Where the two tables count these."""
    words = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint64).reshape(-1, 2) & np.uint64(_SLOTS - 1)
    return words[:, 0], words[:, 1]
