"""Parts that are made once of the training split, row-aligned with its shards: of a core set, of clusters."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from rhostream.errors import Remedy, WorkspaceError
from rhostream.loaders.index.corpus_metadata import SHARD_DIGEST_KEY, ShardRows
from rhostream.loaders.index.shard_list import Shard
from rhostream.loaders.storage import Workspace


def row_part_origin(shard: Shard, key: bytes, identity: str) -> dict[bytes, bytes]:
    """Metadata of a part's Parquet: the shard's digest, and under `key` the SHA-256 of what else it was made of."""
    return {SHARD_DIGEST_KEY: shard.digest.encode(), key: identity.encode()}


def has_row_part(workspace: Workspace, file: str, schema: pa.Schema, origin: Mapping[bytes, bytes]) -> bool:
    """Is the part there, and of this origin?"""
    try:
        found = workspace.read_schema(file, schema).metadata or {}
    except (FileNotFoundError, WorkspaceError):
        return False
    return all(found.get(key) == value for key, value in origin.items())


def read_row_part(
    workspace: Workspace,
    file: str,
    columns: Sequence[str],
    schema: pa.Schema,
    origin: Mapping[bytes, bytes],
    rows: ShardRows,
    other: str,
    remedy: Remedy,
) -> pa.Table:
    """Columns of the part that belongs to these rows, the keys among them.

    Args:
        other: what else it may have been made for, "another core set".

    Raises:
        WorkspaceError: it is of another origin, or of other rows.
    """
    table = workspace.read_table(file, list(columns), schema)
    found = table.schema.metadata or {}
    if any(found.get(key) != value for key, value in origin.items()) or not (
        table.column("key").combine_chunks().equals(rows.keys)
    ):
        raise WorkspaceError(
            f"{workspace.path(file)} was made of other samples than shard {rows.shard.name} holds, or for {other}",
            remedy,
        )
    return table
