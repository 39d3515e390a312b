"""The order of candidates: a function of (seed, epoch) and the index alone.

One global sequence per epoch, the same for any number of ranks and workers: shards in a shuffled order, cut into
blocks of a few shards, the rows of each block shuffled together. Memory is that of one block.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rhostream.errors import ConfigError


def shuffled(count: int, *stream: int) -> npt.NDArray[np.int64]:
    """A permutation of range(count), int64 (count,): a function of the whole numbers in `stream`.

    Sorted by SplitMix64 (Steele et al., 2014) of the position, so that it does not change with NumPy's generators.
    """
    state = np.uint64(0)
    for number in stream:
        state = _splitmix(state ^ np.uint64(number % (1 << 64)))
    with np.errstate(over="ignore"):
        hashes = _splitmix(state + np.arange(count, dtype=np.uint64))
    return np.argsort(hashes, kind="stable")


def _splitmix(value: Any) -> Any:
    """uint64, scalar or array, to uint64 of the same shape."""
    with np.errstate(over="ignore"):
        value = value + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))


@dataclass(frozen=True, kw_only=True)
class Order:
    """How the sequence is cut.

    Attributes:
        block_shards: shards shuffled together; more mixes better and holds more of the index in memory.
        last: what becomes of the candidates which do not fill a super-batch at the epoch's end. "drop" leaves them out
            of this epoch, others of the next: what would be chosen of them is a smaller batch, which hurts training
            and breaks transforms that want even ones. "keep" makes a shorter (or by one longer) super-batch of them.
        within_clusters: draw each super-batch from one cluster as far as these go, where the stream joins clusters: the
            texts of pairs that are alike are harder to tell apart (DnC, arXiv 2105.08054).
        chunk_size: candidates that are scored in one pass, at most. None is all of a process's: then each rank of a job
            scores its part in one pass. A chunk does not change with the number of ranks, and neither do the
            scores, in which BatchNorm's statistics and rounding follow the pass.
    """

    block_shards: int = 8
    last: Literal["drop", "keep"] = "drop"
    within_clusters: bool = False
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        if self.chunk_size is not None and self.chunk_size < 2:
            raise ConfigError(f"chunk_size {self.chunk_size}: two candidates at least, for BatchNorm's statistics")
        if self.block_shards < 1:
            raise ConfigError(f"block_shards {self.block_shards}: at least one shard must be shuffled at a time")
        if self.last not in ("drop", "keep"):
            raise ConfigError(f"last {self.last!r}: choose 'drop' or 'keep'")


class EpochOrder:
    """The global sequence of one epoch over shards of `shard_rows` rows each."""

    def __init__(self, shard_rows: npt.ArrayLike, epoch: int, *, seed: int, block_shards: int) -> None:
        self._stream = (seed, epoch)
        rows = np.asarray(shard_rows, np.int64)
        shards = shuffled(len(rows), *self._stream)
        starts = np.arange(0, len(shards), block_shards)
        self._blocks = [shards[start : start + block_shards] for start in starts]
        self._ends = np.cumsum(np.add.reduceat(rows[shards], starts)) if len(starts) else rows

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def blocks(self) -> int:
        return len(self._blocks)

    def block_at(self, position: int) -> tuple[int, int]:
        """The block which holds this position of the sequence, and the position of the block's first row."""
        block = int(self._ends.searchsorted(position, side="right"))
        return block, int(self._ends[block - 1]) if block else 0

    def shards_of(self, block: int) -> list[int]:
        """Numbers of the shards of a block, in the order in which `rows_of` counts their rows."""
        return [int(shard) for shard in self._blocks[block]]

    def rows_of(self, block: int) -> npt.NDArray[np.int64]:
        """The block's rows in their shuffled order, int64: row i of the block's shards laid end to end."""
        start = int(self._ends[block - 1]) if block else 0
        return shuffled(int(self._ends[block]) - start, *self._stream, 1 + block)


def within_groups(
    rows: npt.NDArray[np.int64], groups: npt.NDArray[np.int32], *, first: int, size: int, stream: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    """The same rows in an order in which most super-batches are of one group.

    Each group is cut into runs of a super-batch's size, which are shuffled. What is left of the groups is laid end to
    end, group after group, and fills what the block has of super-batches that it shares with its neighbors, and the
    last ones.

    Args:
        rows: int64 (n,), of a block, shuffled.
        groups: int32, of each row of the block.
        first: position in the epoch of the first of these rows; super-batches begin at multiples of `size`.
        size: n_B.
        stream: numbers that the order of the runs follows from.
    """
    head = min(-first % size, len(rows))
    places = (len(rows) - head) // size  # super-batches that lie in this block alone
    of_group = [rows[groups[rows] == group] for group in np.unique(groups[rows])]
    whole = [run for part in of_group for run in np.split(part, range(size, len(part) + 1, size)) if len(run) == size]
    order = shuffled(len(whole), *stream)
    runs = [whole[at] for at in order[:places]]
    rest = [part[len(part) - len(part) % size :] for part in of_group] + [whole[at] for at in order[places:]]
    left = np.concatenate(rest) if rest else rows[:0]
    return np.concatenate([left[:head], *runs, left[head:]])


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """The rest of an epoch cut into turns, one super-batch each.

    Attributes:
        start: first position of the sequence that has not been given out.
        total: length of the sequence.
        size: n_B, candidates of a super-batch, over all ranks.
        last: see `Order`.
    """

    start: int
    total: int
    size: int
    last: Literal["drop", "keep"]

    def __len__(self) -> int:
        full, rest = divmod(self.total - self.start, self.size)
        # A rest too small to choose from joins the last full super-batch, unless there is none: of one candidate
        # BatchNorm could make no statistics.
        short = self.last == "keep" and rest >= (2 if full else 1)
        return full + (1 if short else 0)

    def bounds(self, turn: int) -> tuple[int, int]:
        """Positions [first, last) of the super-batch of this turn."""
        first = self.start + turn * self.size
        return first, first + self.size if self.last == "drop" or turn < len(self) - 1 else self.total

    def after(self, turn: int) -> int:
        """The first position that is not given out when this turn is over."""
        return self.bounds(turn)[1]

    @property
    def dropped(self) -> int:
        """Candidates of this epoch that nobody gets."""
        return self.total - (self.after(len(self) - 1) if len(self) else self.start)
