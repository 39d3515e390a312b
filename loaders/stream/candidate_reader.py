"""Reading candidates of one corpus: positions of its sequence become rows, keys, losses and samples to read."""

import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rhostream.loaders.decode import Augmentation
from rhostream.loaders.index import ShardList, thumbnail_tar
from rhostream.loaders.storage import ShardReader, Workspace
from rhostream.loaders.stream.block import CLUSTER, FILTERED, JoinSettings, load_block
from rhostream.loaders.stream.candidate_table import CandidateTable
from rhostream.loaders.stream.first_reads import FirstReads
from rhostream.loaders.stream.order import EpochOrder, within_groups

#: The candidates to read, and those passed over.
Candidates = tuple[CandidateTable, CandidateTable]


class CandidateReader:
    """Reads candidates off the sequences of one corpus. Two blocks of its index are in memory: this and the next.

    Args:
        order: the sequence of an epoch.
        seed: of the augmentation.
        field: of the samples: "image" or "text".
        tokens: name of the stored tokens to give along, or None.
        thumbnails: name of the thumbnails to read in place of the images, or None.
        verify: have the contents of each sample compared when it is first read.
        with_originals: give the full-size images along, where thumbnails are read.
        cluster_size: n_B, where super-batches are drawn within clusters, see `Order`; else None.
    """

    def __init__(
        self,
        workspace: Workspace,
        shards: ShardList,
        *,
        order: Callable[[int], EpochOrder],
        seed: int,
        join: JoinSettings,
        extra: tuple[str, ...],
        field: str,
        tokens: str | None,
        thumbnails: str | None,
        augmentation: Augmentation,
        verify: bool,
        with_originals: bool,
        cluster_size: int | None,
    ) -> None:
        self._shards, self._seed, self._augmentation = shards, seed, augmentation
        self._load = functools.partial(
            load_block, workspace, join=join, extra=extra, thumbnails=thumbnails, field=field, tokens=tokens
        )
        # No function here may hold this object or the stream: dropped, they are to end with their threads at once.
        kept = self._order = functools.lru_cache(maxsize=2)(order)
        self._rows = functools.lru_cache(maxsize=2)(lambda epoch, block: kept(epoch).rows_of(block))
        self._cluster_size, self._clustered = cluster_size, dict[tuple[int, int], npt.NDArray[np.int64]]()
        self._blocks: dict[tuple[int, int], Future[CandidateTable]] = {}
        self._tars = ShardReader(workspace)
        self._field, self._thumbnails, self._to_score = field, thumbnails, "thumbnail" if thumbnails else field
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="rhostream-index")
        self._verify, self._with_originals = verify, with_originals
        self._first_reads = FirstReads(shards.rows)

    def read(self, epoch: int, first: int, last: int, prefiltering: bool) -> list[Candidates]:
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
            block, shards = self._block(epoch, number), order.shards_of(number)
            if self._cluster_size is not None:
                rows = self._within_clusters(rows, block, epoch, number, start)
            parts.append(self._part(block, shards, rows[first - start : stop - start], epoch, prefiltering))
            first = stop
        return parts

    def _within_clusters(
        self, rows: npt.NDArray[np.int64], block: CandidateTable, epoch: int, number: int, start: int
    ) -> npt.NDArray[np.int64]:
        if (epoch, number) not in self._clustered:
            assert self._cluster_size is not None, "asked by `read`"
            stream = (self._seed, epoch, 1 + number, 1)
            found = within_groups(rows, block.extra[CLUSTER], first=start, size=self._cluster_size, stream=stream)
            self._clustered = {(epoch, number): found}
        return self._clustered[epoch, number]

    def _block(self, epoch: int, number: int) -> CandidateTable:
        """This block, while the next one is being loaded and its tars are brought near."""
        order = self._order(epoch)
        wanted = [(epoch, number), (epoch, number + 1)] if number + 1 < order.blocks else [(epoch, number)]
        self._blocks = {at: block for at, block in self._blocks.items() if at in wanted}
        for at in wanted:
            if at not in self._blocks:
                shards = [self._shards[shard] for shard in order.shards_of(at[1])]
                self._blocks[at] = self._loading.submit(self._load, shards)
                name = self._thumbnails
                self._tars.prefetch(thumbnail_tar(name, shard.name) if name else shard.tar for shard in shards)
        try:
            return self._blocks[epoch, number].result()
        except BaseException:
            del self._blocks[epoch, number]  # what is mended meanwhile can be read
            raise

    def _part(
        self,
        block: CandidateTable,
        shards: list[int],
        positions: npt.NDArray[np.int64],
        epoch: int,
        prefiltering: bool,
    ) -> Candidates:
        """The rows of a block at these positions; `shards` are the numbers of the block's shards in the corpus."""
        passed = positions[:0]
        if block.reasons is not None:
            reasons = block.reasons[positions]
            is_read = reasons == "" if prefiltering else (reasons == "") | (reasons == FILTERED)
            positions, passed = positions[is_read], positions[~is_read]
        refs = block.refs.copy()
        # The rows count as read from now on.
        numbers = np.asarray(shards)[refs[self._field].numbers[positions]]
        if not (self._first_reads.mark(numbers, block.rows[positions]) and self._verify):
            refs[self._to_score] = replace(refs[self._to_score], hashes=None)
        if self._to_score == "thumbnail":
            if not self._with_originals:
                del refs["image"]
            elif not self._verify:
                refs["image"] = replace(refs["image"], hashes=None)
        candidates = replace(block, reasons=None, refs=refs).take(positions)
        if self._augmentation != "none":
            seeds = [f"{self._seed}/{epoch}/{key}" for key in candidates.keys]
            seeded = {name: replace(each, augmentation_seeds=seeds) for name, each in candidates.refs.items()}
            candidates = replace(candidates, refs=seeded)
        return candidates, block.passed_over(passed)
