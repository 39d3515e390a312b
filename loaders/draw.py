"""Drawing candidates of one corpus: positions of its sequence become rows, keys, losses and images to read."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rhostream.loaders.augmentation import Augmentation
from rhostream.loaders.batch import PassedOver
from rhostream.loaders.block import FILTERED, VERDICTS, Block, JoinSettings, load_block
from rhostream.loaders.index import Shard
from rhostream.loaders.order import EpochOrder
from rhostream.loaders.picks import Picks
from rhostream.loaders.scoring_view import rendition_tar
from rhostream.loaders.shard_reader import ShardReader
from rhostream.loaders.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Candidates whose images have not been read yet; columns of length n.

    Attributes:
        images: the images to score.
        originals: the full-size ones behind them, where a scoring view is read; else None.
        passed_over: candidates drawn with these and not to be read.
    """

    keys: list[str]
    shards: list[str]
    rows: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    il: npt.NDArray[np.float32] | None
    extra: dict[str, npt.NDArray[Any]]
    images: Picks
    originals: Picks | None
    passed_over: list[PassedOver]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, positions: npt.NDArray[np.int64]) -> "Drawn":
        """Those at these positions, in this order, and all that are passed over."""
        return Drawn(
            keys=[self.keys[position] for position in positions],
            shards=[self.shards[position] for position in positions],
            rows=self.rows[positions],
            labels=self.labels[positions],
            il=None if self.il is None else self.il[positions],
            extra={name: column[positions] for name, column in self.extra.items()},
            images=self.images.take(positions),
            originals=None if self.originals is None else self.originals.take(positions),
            passed_over=self.passed_over,
        )

    def pass_over(self, position: int, reason: str) -> PassedOver:
        """The candidate at this position as one that is passed over."""
        return PassedOver(
            key=self.keys[position],
            shard=self.shards[position],
            row=int(self.rows[position]),
            label=int(self.labels[position]),
            il=None if self.il is None else float(self.il[position]),
            reason=reason,
            extra={name: column[position] for name, column in self.extra.items()},
        )

    @classmethod
    def concatenated(cls, parts: Sequence["Drawn"]) -> "Drawn":
        """All of them; of the extra columns those that every part has."""
        if len(parts) == 1:
            return parts[0]
        il = [part.il for part in parts if part.il is not None]
        originals = [part.originals for part in parts if part.originals is not None]
        shared = [name for name in parts[0].extra if all(name in part.extra for part in parts)]
        return cls(
            keys=[key for part in parts for key in part.keys],
            shards=[shard for part in parts for shard in part.shards],
            rows=np.concatenate([part.rows for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
            il=np.concatenate(il) if il else None,
            extra={name: np.concatenate([part.extra[name] for part in parts]) for name in shared},
            images=Picks.concatenated([part.images for part in parts]),
            originals=Picks.concatenated(originals) if originals else None,
            passed_over=[candidate for part in parts for candidate in part.passed_over],
        )


class Drawer:
    """Draws from the sequences of one corpus. Two blocks of its index are in memory: this and the next.

    Args:
        order: the sequence of an epoch.
        seed: of the augmentation.
        verify: have the contents of each image compared when it is first drawn.
    """

    def __init__(
        self,
        workspace: Workspace,
        shards: tuple[Shard, ...],
        *,
        order: Callable[[int], EpochOrder],
        seed: int,
        join: JoinSettings,
        extra: tuple[str, ...],
        scoring_view: str | None,
        augmentation: Augmentation,
        verify: bool,
    ) -> None:
        self._shards, self._seed, self._augmentation = shards, seed, augmentation
        self._load = functools.partial(load_block, workspace, join=join, extra=extra, scoring_view=scoring_view)
        # No function here may hold this object or the stream: dropped, they are to end with their threads at once.
        kept = self._order = functools.lru_cache(maxsize=2)(order)
        self._rows = functools.lru_cache(maxsize=2)(lambda epoch, block: kept(epoch).rows_of(block))
        self._blocks: dict[tuple[int, int], Future[Block]] = {}
        self._tars = ShardReader(workspace)
        self._scoring_view = scoring_view
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="rhostream-index")
        self._verify = verify
        self._first_reads = FirstReads([shard.rows for shard in shards])
        self._numbers = {shard.name: number for number, shard in enumerate(shards)}

    def draw(self, epoch: int, first: int, last: int, prefiltering: bool) -> list[Drawn]:
        """The candidates at positions [first, last) of the epoch's sequence, in parts of one block each.

        Args:
            prefiltering: pass over what the prefilter rules out.
        """
        order = self._order(epoch)
        parts = []
        while first < last:
            number, start = order.block_at(first)
            rows = self._rows(epoch, number)
            stop = min(last, start + len(rows))
            parts.append(
                self._part(self._block(epoch, number), rows[first - start : stop - start], epoch, prefiltering)
            )
            first = stop
        return parts

    def _block(self, epoch: int, number: int) -> Block:
        """This block, while the next one is being loaded and its tars are brought near."""
        order = self._order(epoch)
        wanted = [(epoch, number), (epoch, number + 1)] if number + 1 < order.blocks else [(epoch, number)]
        self._blocks = {at: block for at, block in self._blocks.items() if at in wanted}
        for at in wanted:
            if at not in self._blocks:
                shards = [self._shards[shard] for shard in order.shards_of(at[1])]
                self._blocks[at] = self._loading.submit(self._load, shards)
                view = self._scoring_view
                self._tars.prefetch(rendition_tar(view, shard.name) if view else shard.tar for shard in shards)
        try:
            return self._blocks[epoch, number].result()
        except BaseException:
            del self._blocks[epoch, number]  # what is mended meanwhile can be read
            raise

    def _part(self, block: Block, picked: npt.NDArray[np.int64], epoch: int, prefiltering: bool) -> Drawn:
        verdicts = block.verdicts[picked]
        if not prefiltering:
            verdicts = np.where(verdicts == FILTERED, 0, verdicts)
        wanted = picked[verdicts == 0]
        keys = block.keys.take(wanted).to_pylist()
        draws = [f"{self._seed}/{epoch}/{key}" for key in keys] if self._augmentation != "none" else None
        scored = block.renditions or block.originals
        names = [shard.name for shard in block.shards]
        return Drawn(
            keys=keys,
            shards=[names[number] for number in block.numbers[wanted].tolist()],
            rows=block.rows[wanted],
            labels=block.labels[wanted],
            il=None if block.il is None else block.il[wanted],
            extra={name: column[wanted] for name, column in block.extra.items()},
            images=scored.picks(wanted, draws=draws, verify=self._verify and self._are_first(block, wanted)),
            originals=(block.originals.picks(wanted, draws=draws, verify=self._verify) if block.renditions else None),
            passed_over=[
                _passed_over(block, int(row), VERDICTS[verdict] or "")
                for row, verdict in zip(picked[verdicts != 0], verdicts[verdicts != 0], strict=True)
            ],
        )

    def _are_first(self, block: Block, rows: npt.NDArray[np.int64]) -> bool:
        """Is any of these rows read for the first time? They count as read from now on."""
        shards = np.asarray([self._numbers[shard.name] for shard in block.shards])
        return self._first_reads.mark(shards[block.numbers[rows]], block.rows[rows])


class FirstReads:
    """Which rows have been read: a bit for each."""

    def __init__(self, shard_rows: Sequence[int]) -> None:
        self._starts = np.cumsum([0, *shard_rows])
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


def _passed_over(block: Block, row: int, reason: str) -> PassedOver:
    il = None if block.il is None or not np.isfinite(block.il[row]) else float(block.il[row])
    return PassedOver(
        key=block.keys[row].as_py(),
        shard=block.shards[block.numbers[row]].name,
        row=int(block.rows[row]),
        label=int(block.labels[row]),
        il=il,
        reason=reason,
        extra={name: column[row] for name, column in block.extra.items()},
    )
