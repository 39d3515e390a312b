"""Drawing candidates of one corpus: positions of its sequence become rows, keys, losses and images to read."""

import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from rhostream.loaders.decode import Augmentation
from rhostream.loaders.index import Shard, taken, thumbnail_tar
from rhostream.loaders.storage import ShardReader, Workspace
from rhostream.loaders.stream.block import FILTERED, VERDICTS, Block, JoinSettings, load_block
from rhostream.loaders.stream.candidate_table import CandidateTable
from rhostream.loaders.stream.first_reads import FirstReads
from rhostream.loaders.stream.order import EpochOrder
from rhostream.loaders.stream.super_batch import PassedOver


class CandidateReader:
    """Draws from the sequences of one corpus. Two blocks of its index are in memory: this and the next.

    Args:
        order: the sequence of an epoch.
        seed: of the augmentation.
        verify: have the contents of each image compared when it is first drawn.
        with_originals: give the full-size images along, where thumbnails is read.
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
        thumbnails: str | None,
        augmentation: Augmentation,
        verify: bool,
        with_originals: bool,
    ) -> None:
        self._shards, self._seed, self._augmentation = shards, seed, augmentation
        self._load = functools.partial(load_block, workspace, join=join, extra=extra, thumbnails=thumbnails)
        # No function here may hold this object or the stream: dropped, they are to end with their threads at once.
        kept = self._order = functools.lru_cache(maxsize=2)(order)
        self._rows = functools.lru_cache(maxsize=2)(lambda epoch, block: kept(epoch).rows_of(block))
        self._blocks: dict[tuple[int, int], Future[Block]] = {}
        self._tars = ShardReader(workspace)
        self._thumbnails = thumbnails
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="rhostream-index")
        self._verify, self._with_originals = verify, with_originals
        self._first_reads = FirstReads([shard.rows for shard in shards])
        self._numbers = {shard.name: number for number, shard in enumerate(shards)}

    def draw(self, epoch: int, first: int, last: int, prefiltering: bool) -> list[CandidateTable]:
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
                spec = self._thumbnails
                self._tars.prefetch(thumbnail_tar(spec, shard.name) if spec else shard.tar for shard in shards)
        try:
            return self._blocks[epoch, number].result()
        except BaseException:
            del self._blocks[epoch, number]  # what is mended meanwhile can be read
            raise

    def _part(self, block: Block, picked: npt.NDArray[np.int64], epoch: int, prefiltering: bool) -> CandidateTable:
        verdicts = block.verdicts[picked]
        if not prefiltering:
            verdicts = np.where(verdicts == FILTERED, 0, verdicts)
        wanted = picked[verdicts == 0]
        keys = taken(block.keys, wanted)
        draws = [f"{self._seed}/{epoch}/{key}" for key in keys] if self._augmentation != "none" else None
        scored = block.thumbnail_files or block.originals
        names = [shard.name for shard in block.shards]
        return CandidateTable(
            keys=keys,
            shards=[names[number] for number in block.numbers[wanted].tolist()],
            rows=block.rows[wanted],
            labels=block.labels[wanted],
            il=None if block.il is None else block.il[wanted],
            extra={name: column[wanted] for name, column in block.extra.items()},
            images=scored.refs(wanted, draws=draws, verify=self._verify and self._are_first(block, wanted)),
            originals=(
                block.originals.refs(wanted, draws=draws, verify=self._verify)
                if block.thumbnail_files and self._with_originals
                else None
            ),
            passed_over=[
                _passed_over(block, int(row), VERDICTS[verdict] or "")
                for row, verdict in zip(picked[verdicts != 0], verdicts[verdicts != 0], strict=True)
            ],
        )

    def _are_first(self, block: Block, rows: npt.NDArray[np.int64]) -> bool:
        """Is any of these rows read for the first time? They count as read from now on."""
        shards = np.asarray([self._numbers[shard.name] for shard in block.shards])
        return self._first_reads.mark(shards[block.numbers[rows]], block.rows[rows])


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
