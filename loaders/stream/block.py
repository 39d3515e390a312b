"""A block of shards in memory: their index rows, joined with the IL table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rhostream.errors import ConfigError
from rhostream.loaders.decode import StoredRefs
from rhostream.loaders.index import (
    Clusters,
    CoreSet,
    Shard,
    ShardRows,
    ThumbnailRows,
    concat_labels,
    is_validation_sample,
    read_shard_rows,
    read_thumbnail_rows,
    read_tokens,
)
from rhostream.loaders.reference import ILTable, JoinedRows, Prefilter, unusable
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream.candidate_table import CandidateTable

#: The reason of what the prefilter rules out.
FILTERED: Final = "filtered"
#: The extra column of a stream that joins clusters, int32.
CLUSTER: Final = "cluster"


@dataclass(frozen=True, kw_only=True)
class JoinSettings:
    """How index rows meet the IL table, and which of them are streamed.

    Attributes:
        table: None where the stream joins no IL.
        core_set: the samples to stream; None where all are.
        clusters: give the extra column "cluster"; None where none are joined.
        prefilter: rules candidates out before they are read, or None.
        on_missing: what to do with a sample that has no finite irreducible loss.
        validation_share: share of the samples that is not streamed, see `rhostream.loaders.index.validation_samples`.
        classes: number of classes.
    """

    table: ILTable | None
    core_set: CoreSet | None
    clusters: Clusters | None
    validation_share: float
    prefilter: Prefilter | None
    on_missing: Literal["error", "drop"]
    classes: int

    def __post_init__(self) -> None:
        if self.on_missing not in ("error", "drop"):
            raise ConfigError(f"on_missing {self.on_missing!r}: choose 'error' or 'drop'")


def load_block(
    workspace: Workspace,
    shards: list[Shard],
    join: JoinSettings,
    extra: tuple[str, ...],
    thumbnails: str | None,
    field: str = "image",
    tokens: str | None = None,
) -> CandidateTable:
    """Read and join the index of these shards, laid end to end; `refs` name the tars in the order of the shards.

    Args:
        field: of the samples, of which the index's plain columns tell.
        tokens: name of stored tokens to give along, or None.

    Raises:
        WorkspaceError: an index is missing or does not fit corpus.json.
        IrreducibleLossError: the IL table does not serve these shards.
    """
    parts = [read_shard_rows(workspace, shard, extra) for shard in shards]
    joined = [join.table.join(part) for part in parts] if join.table else None
    counts = [len(part) for part in parts]
    reasons = np.concatenate([_reasons(part, joined[i] if joined else None, join) for i, part in enumerate(parts)])
    refs = {field: _refs([shard.tar for shard in shards], parts)}
    if thumbnails:
        rows = [read_thumbnail_rows(workspace, thumbnails, part) for part in parts]
        refs["thumbnail"] = _refs([part.tar for part in rows], rows)
    names: Any = np.repeat(np.array([shard.name for shard in shards], object), counts)
    return CandidateTable(
        keys=pa.concat_arrays([part.keys for part in parts]),
        shards=names,
        rows=np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        labels=concat_labels([part.labels for part in parts]),
        il=np.concatenate([part.il for part in joined]) if joined else None,
        extra={
            name: np.concatenate([part.extra[name] for part in parts])
            for name in extra
            if all(name in part.extra for part in parts)
        }
        | _embeddings(joined or [])
        | ({} if join.clusters is None else {CLUSTER: np.concatenate([join.clusters.of(part) for part in parts])}),
        texts=None if parts[0].texts is None else pa.concat_arrays([part.texts for part in parts]),
        reasons=reasons if (reasons != "").any() else None,
        refs=refs,
        tokens=pa.concat_arrays([read_tokens(workspace, tokens, part) for part in parts]) if tokens else None,
    )


def _embeddings(joined: Sequence[JoinedRows]) -> dict[str, npt.NDArray[Any]]:
    """float16 (n, D) by name; empty where the reference table holds none."""
    names = joined[0].embeddings if joined else {}
    return {name: np.concatenate([part.embeddings[name] for part in joined]) for name in names}


def _refs(tars: list[str], parts: Sequence[ShardRows] | Sequence[ThumbnailRows]) -> StoredRefs:
    return StoredRefs(
        tars=tars,
        numbers=np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.offsets) for part in parts]),
        offsets=np.concatenate([part.offsets for part in parts]),
        sizes=np.concatenate([part.sizes for part in parts]),
        hashes=pa.concat_arrays([part.hashes for part in parts]),
    )


def _reasons(rows: ShardRows, joined: JoinedRows | None, join: JoinSettings) -> npt.NDArray[Any]:
    """Why each row is not to be read, "" for those that are; of several reasons the last one asked for."""
    reasons = np.full(len(rows), "", object)
    if joined is not None:
        if join.prefilter is not None:
            reasons[join.prefilter.rules_out(joined, rows.labels, join.classes)] = FILTERED
        reasons[unusable(joined, rows, join.on_missing)] = "il_missing"
    if join.core_set is not None:
        reasons[~join.core_set.kept(rows)] = "not_in_core_set"
    if join.validation_share:
        reasons[is_validation_sample(rows.keys.to_pylist(), join.validation_share)] = "validation"
    return reasons
