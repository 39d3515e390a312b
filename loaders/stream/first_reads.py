"""Which rows of a corpus have been read before."""

import numpy as np
import numpy.typing as npt


class FirstReads:
    """Which rows have been read: a bit for each."""

    def __init__(self, shard_rows: npt.ArrayLike) -> None:
        self._starts = np.concatenate([[0], np.cumsum(shard_rows, dtype=np.int64)])
        # Untouched pages of zeros take no memory.
        self._bits = np.zeros(self._starts[-1] // 8 + 1, np.uint8)
        self._left = int(self._starts[-1])

    def mark(self, shards: npt.NDArray[np.int64], rows: npt.NDArray[np.int32]) -> bool:
        """Mark these rows as read; True where one of them was not."""
        if not self._left:
            return False
        numbers = self._starts[shards] + rows
        bits = np.uint8(1) << (numbers % 8).astype(np.uint8)
        fresh = int(((self._bits[numbers // 8] & bits) == 0).sum())
        if fresh:
            np.bitwise_or.at(self._bits, numbers // 8, bits)
            self._left -= fresh
        return fresh > 0
