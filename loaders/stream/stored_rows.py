"""Samples named by shard and row, wherever they lie in the corpus: what a replay reads."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from rhostream.errors import WorkspaceError
from rhostream.loaders.decode import Augmentation
from rhostream.loaders.index import ShardList
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream.block import JoinSettings, load_block
from rhostream.loaders.stream.candidate_table import CandidateTable
from rhostream.loaders.stream.first_reads import FirstReads

#: Shards whose index rows are held: those of two blocks of the usual order, twice over.
_HELD: Final = 32


class StoredRows:
    """Finds samples in the index. The rows of some shards are in memory, the last ones that were asked for.

    Args:
        extra: further columns of the index to carry along.
        field: of the samples: "image" or "text".
        thumbnails: name of exact thumbnails to read in place of the images, or None.
        augmentation, seed: as of `CandidateStream`.
        verify: have the contents of each image compared when it is first read.
    """

    def __init__(
        self,
        workspace: Workspace,
        shards: ShardList,
        *,
        classes: int,
        extra: tuple[str, ...],
        field: str,
        thumbnails: str | None,
        augmentation: Augmentation,
        seed: int,
        verify: bool,
    ) -> None:
        self._shards, self._numbers = shards, {name: number for number, name in enumerate(shards.names)}
        join = JoinSettings(
            table=None,
            core_set=None,
            clusters=None,
            prefilter=None,
            on_missing="error",
            validation_share=0.0,
            classes=classes,
        )
        self._field, self._stored = field, "thumbnail" if thumbnails else field
        self._rows_of = functools.lru_cache(maxsize=_HELD)(
            lambda number: load_block(workspace, [shards[number]], join, extra, thumbnails, field)
        )
        self._augmentation, self._seed, self._verify = augmentation, seed, verify
        self._first_reads = FirstReads(shards.rows)

    def read(
        self, shards: Sequence[str], rows: npt.NDArray[np.int32], keys: Sequence[str], epoch: int
    ) -> CandidateTable:
        """The samples there, in this order, their images not yet read: `refs[field]` says where those lie.

        Args:
            shards: names.
            rows: int32 (n,), positions in the shards.
            keys: what the samples must be.
            epoch: of the augmentation.

        Raises:
            WorkspaceError: another sample lies there, or no such shard.
        """
        unknown = next((shard for shard in shards if shard not in self._numbers), None)
        if unknown is not None:
            raise WorkspaceError(f"the corpus has no shard {unknown!r}: it is another corpus, or was written anew")
        numbers = np.array([self._numbers[shard] for shard in shards], np.int64)
        parts, order = [], []
        for number in dict.fromkeys(numbers.tolist()):
            at = np.flatnonzero(numbers == number)
            order.append(at)
            held = self._rows_of(number)
            if int(rows[at].max()) >= len(held):
                raise WorkspaceError(
                    f"shard {self._shards[number].name} has no row {rows[at].max()}: it was written anew"
                )
            parts.append(held.take(rows[at].astype(np.int64)))
        found = CandidateTable.concat(parts).take(np.argsort(np.concatenate(order), kind="stable"))
        for key, other in zip(keys, found.keys, strict=True):
            if key != other:
                raise WorkspaceError(
                    f"sample {key!r} is not where it was, {other!r} is there: the corpus is another one"
                )
        refs = found.refs[self._stored]
        if not (self._first_reads.mark(numbers, rows) and self._verify):
            refs = replace(refs, hashes=None)
        if self._augmentation != "none":
            refs = replace(refs, augmentation_seeds=[f"{self._seed}/{epoch}/{key}" for key in keys])
        return replace(found, reasons=None, refs={self._field: refs})
