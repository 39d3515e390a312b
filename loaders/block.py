"""A block of shards in memory: their index rows, joined with the IL table, in the epoch's order."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rhostream.loaders.index import Shard, ShardRows, read_shard_rows
from rhostream.loaders.join import ILTable, JoinedRows, Prefilter, unusable
from rhostream.loaders.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class JoinSettings:
    """How index rows meet the IL table.

    Attributes:
        table: None where the stream joins no IL.
        prefilter: rules candidates out before they are read, or None.
        on_missing: what to do with a sample that has no finite irreducible loss.
        classes: number of classes.
    """

    table: ILTable | None
    prefilter: Prefilter | None
    on_missing: Literal["error", "drop"]
    classes: int


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows of a few shards laid end to end, each array of length n.

    Attributes:
        order: int64 (n,), the shuffled sequence of row numbers.
        shards, shard_numbers: the shards, and which of them holds each row.
        verdict: object (n,): why a row is passed over, or None.
    """

    order: npt.NDArray[np.int64]
    shards: list[Shard]
    shard_numbers: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]
    keys: pa.Array
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    il: npt.NDArray[np.float32] | None
    verdict: npt.NDArray[np.object_]
    extra: dict[str, npt.NDArray[Any]]


def load_block(
    workspace: Workspace,
    shards: list[Shard],
    order: npt.NDArray[np.int64],
    join: JoinSettings,
    extra: tuple[str, ...],
) -> Block:
    """Read and join the index of these shards.

    Raises:
        WorkspaceError: an index is missing or does not fit corpus.json.
        IrreducibleLossError: the IL table does not serve these shards.
    """
    parts = [read_shard_rows(workspace, shard, extra) for shard in shards]
    joined = [join.table.join(part) for part in parts] if join.table else None
    names = [name for name in extra if all(name in part.extra for part in parts)]
    return Block(
        order=order,
        shards=shards,
        shard_numbers=np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts]),
        rows=np.concatenate([np.arange(len(part), dtype=np.int32) for part in parts]),
        keys=pa.concat_arrays([part.keys for part in parts]),
        offsets=np.concatenate([part.offsets for part in parts]),
        sizes=np.concatenate([part.sizes for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        il=np.concatenate([part.il for part in joined]) if joined else None,
        verdict=np.concatenate([_verdict(part, joined[i] if joined else None, join) for i, part in enumerate(parts)]),
        extra={name: np.concatenate([part.extra[name] for part in parts]) for name in names},
    )


def _verdict(rows: ShardRows, joined: JoinedRows | None, join: JoinSettings) -> npt.NDArray[np.object_]:
    verdict = np.full(len(rows), None, dtype=object)
    if joined is not None:
        if join.prefilter is not None:
            verdict[join.prefilter.rules_out(joined, rows.labels, join.classes)] = "filtered"
        verdict[unusable(joined, rows, join.on_missing)] = "il_missing"
    return verdict
