"""A block of shards in memory: their index rows, joined with the IL table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rhostream.errors import ConfigError
from rhostream.loaders.decode import ImageRefs
from rhostream.loaders.index import (
    CoreSet,
    Shard,
    ShardRows,
    ThumbnailRows,
    is_validation_sample,
    read_shard_rows,
    read_thumbnail_rows,
    taken,
)
from rhostream.loaders.reference import ILTable, JoinedRows, Prefilter, unusable
from rhostream.loaders.storage import Workspace

#: Why a row is passed over before it is read, by its verdict; 0 is none.
VERDICTS = (None, "filtered", "il_missing", "not_in_core_set", "validation")
FILTERED = VERDICTS.index("filtered")


@dataclass(frozen=True, kw_only=True)
class JoinSettings:
    """How index rows meet the IL table, and which of them are streamed.

    Attributes:
        table: None where the stream joins no IL.
        core_set: the samples to stream; None where all are.
        prefilter: rules candidates out before they are read, or None.
        on_missing: what to do with a sample that has no finite irreducible loss.
        validation_share: share of the samples that is not streamed, see `rhostream.loaders.index.validation_samples`.
        classes: number of classes.
    """

    table: ILTable | None
    core_set: CoreSet | None
    validation_share: float
    prefilter: Prefilter | None
    on_missing: Literal["error", "drop"]
    classes: int

    def __post_init__(self) -> None:
        if self.on_missing not in ("error", "drop"):
            raise ConfigError(f"on_missing {self.on_missing!r}: choose 'error' or 'drop'")


@dataclass(frozen=True, kw_only=True)
class Files:
    """Where the images of a block's rows lie: the originals, or their thumbnails in thumbnails."""

    tars: list[str]
    numbers: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    hashes: pa.Array

    def refs(self, rows: npt.NDArray[np.int64], *, draws: Sequence[str] | None, verify: bool) -> ImageRefs:
        """Those of these rows of the block, in this order; `verify` has their contents compared."""
        return ImageRefs(
            tars=self.tars,
            numbers=self.numbers[rows],
            offsets=self.offsets[rows],
            sizes=self.sizes[rows],
            hashes=taken(self.hashes, rows) if verify else None,
            draws=draws,
        )


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows of a few shards laid end to end, each array of length n.

    Attributes:
        shards, numbers: the shards, and which of them holds each row.
        verdicts: int8 (n,), an index of `VERDICTS`.
        originals: their images.
        thumbnails: those of the thumbnails; None where the originals are scored.
    """

    shards: list[Shard]
    numbers: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]
    keys: pa.Array
    labels: npt.NDArray[np.int32]
    il: npt.NDArray[np.float32] | None
    verdicts: npt.NDArray[np.int8]
    extra: dict[str, npt.NDArray[Any]]
    originals: Files
    thumbnail_files: Files | None


def load_block(
    workspace: Workspace, shards: list[Shard], join: JoinSettings, extra: tuple[str, ...], thumbnails: str | None
) -> Block:
    """Read and join the index of these shards.

    Raises:
        WorkspaceError: an index is missing or does not fit corpus.json.
        IrreducibleLossError: the IL table does not serve these shards.
    """
    parts = [read_shard_rows(workspace, shard, extra) for shard in shards]
    joined = [join.table.join(part) for part in parts] if join.table else None
    names = [name for name in extra if all(name in part.extra for part in parts)]
    numbers = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    thumbnail_files = [read_thumbnail_rows(workspace, thumbnails, part) for part in parts] if thumbnails else None
    return Block(
        shards=shards,
        numbers=numbers,
        rows=np.concatenate([np.arange(len(part), dtype=np.int32) for part in parts]),
        keys=pa.concat_arrays([part.keys for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        il=np.concatenate([part.il for part in joined]) if joined else None,
        verdicts=np.concatenate([_verdicts(part, joined[i] if joined else None, join) for i, part in enumerate(parts)]),
        extra={name: np.concatenate([part.extra[name] for part in parts]) for name in names},
        originals=_files([shard.tar for shard in shards], numbers, parts),
        thumbnail_files=_files([part.tar for part in thumbnail_files], numbers, thumbnail_files)
        if thumbnail_files
        else None,
    )


def _files(
    tars: list[str], numbers: npt.NDArray[np.int32], parts: Sequence[ShardRows] | Sequence[ThumbnailRows]
) -> Files:
    return Files(
        tars=tars,
        numbers=numbers,
        offsets=np.concatenate([part.offsets for part in parts]),
        sizes=np.concatenate([part.sizes for part in parts]),
        hashes=pa.concat_arrays([part.hashes for part in parts]),
    )


def _verdicts(rows: ShardRows, joined: JoinedRows | None, join: JoinSettings) -> npt.NDArray[np.int8]:
    verdicts = np.zeros(len(rows), np.int8)
    if joined is not None:
        if join.prefilter is not None:
            verdicts[join.prefilter.rules_out(joined, rows.labels, join.classes)] = FILTERED
        verdicts[unusable(joined, rows, join.on_missing)] = VERDICTS.index("il_missing")
    if join.core_set is not None:
        verdicts[~join.core_set.kept(rows)] = VERDICTS.index("not_in_core_set")
    if join.validation_share:
        verdicts[is_validation_sample(rows.keys.to_pylist(), join.validation_share)] = VERDICTS.index("validation")
    return verdicts
