"""The shard index: what a workspace holds, without opening a tar."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rhostream.errors import Remedy, ShardError, Stage, WorkspaceError
from rhostream.former import manifest_today
from rhostream.loaders.decode import ImageSpec
from rhostream.loaders.index.columns import values
from rhostream.loaders.index.labels import LABEL_COLUMNS, Labels, labels_in
from rhostream.loaders.storage import Workspace

METADATA_NAME = "corpus.json"

#: Metadata of the Parquet files of a shard: `Shard.digest` in its index, and in what was computed from it.
SHARD_DIGEST_KEY = b"rhostream.shard_digest"
#: Metadata of an IL part's Parquet.
IL_MODEL_KEY = b"rhostream.il_model_sha256"  # of the model's metadata

_COLUMNS = ("key", "offset", "size", "content_hash")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Samples of one tar, and their index.

    Attributes:
        fold: -1 where the corpus has no folds.
        digest: identifies keys, labels and contents.
        source: path or URL of a tar that was indexed where it lies; "" for one in the workspace.
            Several shards may share such a tar: one for each split.
    """

    name: str
    split: str
    fold: int
    rows: int
    digest: str
    source: str = ""

    @property
    def tar(self) -> str:
        """Name of the tar in the workspace, or the absolute path or URL of one outside it."""
        return self.source or f"shards/{self.name}.tar"

    def remedy(self, workspace: Workspace, *, overwrite: bool = False) -> Remedy:
        """What makes it and its index again."""
        settings = {"overwrite": True} if overwrite else {}
        return Remedy(Stage.INDEX if self.source else Stage.SHARDS, workspace.location, settings)

    @property
    def index(self) -> str:
        return f"index/{self.name}.parquet"

    def scores(self, il_name: str) -> str:
        return f"il/{il_name}/scores/{self.name}.parquet"


@dataclass(frozen=True, kw_only=True)
class CorpusMetadata:
    """`corpus.json`: what the workspace was made from.

    Attributes:
        manifest: the resolved manifest, as JSON values.
        task: "classification", or "multi_label" where a sample has any number of classes.
        classes: name of every label.
        counts: entries = samples + rejects, and samples by split.
        shards: in name order.
        fingerprint: of the split; changes with any key, label, content or assignment.
    """

    manifest: dict[str, Any]
    classes: tuple[str, ...]
    counts: dict[str, Any]
    shards: tuple[Shard, ...]
    fingerprint: str
    task: str = "classification"

    @classmethod
    def read(cls, workspace: Workspace) -> "CorpusMetadata":
        """Raises WorkspaceError where the shards are not finished."""
        if not workspace.exists(METADATA_NAME):
            raise WorkspaceError(
                f"workspace {workspace.location!r} has no {METADATA_NAME}: name another workspace, or",
                Remedy(Stage.SHARDS, workspace.location),
            )
        corpus = workspace.read_json(METADATA_NAME)
        try:
            return cls(
                manifest=manifest_today(corpus["manifest"]),
                classes=tuple(corpus["classes"]),
                counts=corpus["counts"],
                shards=tuple(Shard(**shard) for shard in corpus["shards"]),
                fingerprint=corpus["fingerprint"],
                task=corpus.get("task", "classification"),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise WorkspaceError(
                f"{workspace.path(METADATA_NAME)} is no corpus metadata ({error!r}): restore it, or",
                Remedy(Stage.SHARDS, workspace.location),
            ) from error

    def image_spec(self, size: int = 0) -> ImageSpec:
        """The spec that the manifest asks for, or the same at another size (0 keeps the manifest's)."""
        spec = ImageSpec.from_dict(self.manifest.get("image", {}))
        return replace(spec, size=size) if size else spec

    def split(self, *splits: str) -> tuple[Shard, ...]:
        """The shards of these splits, in name order."""
        return tuple(shard for shard in self.shards if shard.split in splits)


@dataclass(frozen=True, kw_only=True)
class ShardRows:
    """The index of one shard as columns, each of length `len(rows)`, in shard order."""

    shard: Shard
    keys: pa.StringArray
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    hashes: pa.StringArray
    labels: Labels
    extra: dict[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.keys)


def read_shard_rows(workspace: Workspace, shard: Shard, extra: tuple[str, ...] = ()) -> ShardRows:
    """Read the index of one shard.

    Args:
        extra: further columns to read, for instance `clean_label`; a column that this corpus lacks is left out.

    Raises:
        WorkspaceError: the index is missing, or is not the one of which `shard` tells: with other rows, or rewritten.
    """
    if not workspace.exists(shard.index):
        raise WorkspaceError(
            f"{workspace.path(shard.index)} is missing, though {METADATA_NAME} lists it",
            shard.remedy(workspace),
        )
    present = set(workspace.column_names(shard.index)) if extra else set()
    table = workspace.read_table(shard.index, [*_COLUMNS, *(n for n in extra if n in present)], any_of=LABEL_COLUMNS)
    digest = (table.schema.metadata or {}).get(SHARD_DIGEST_KEY, b"").decode()
    if table.num_rows != shard.rows or digest != shard.digest:
        differs = "keys, labels or images" if table.num_rows == shard.rows else f"{shard.rows} rows"
        raise WorkspaceError(
            f"{workspace.path(shard.index)} ({table.num_rows} rows) is not the index that {METADATA_NAME} tells of, "
            f"which has other {differs}: start again if the index was rewritten meanwhile; else delete it and",
            shard.remedy(workspace),
        )
    return ShardRows(
        shard=shard,
        keys=table.column("key").combine_chunks(),
        offsets=values(table.column("offset")),
        sizes=values(table.column("size")),
        hashes=table.column("content_hash").combine_chunks(),
        labels=labels_in(table),
        extra={name: values(table.column(name)) for name in extra if name in table.column_names},
    )


def undecodable(workspace: Workspace, shard: Shard, row: int, reason: str) -> ShardError:
    """The error for a stored sample that was decodable when its shard was made."""
    key = read_shard_rows(workspace, shard).keys[row].as_py()
    return ShardError(
        f"{workspace.path(shard.tar)} row {row}, key {key!r}: {reason}; the tar was changed or damaged after it was "
        f"indexed: restore it, or{'' if shard.source else ' delete it and'}",
        shard.remedy(workspace, overwrite=bool(shard.source)),
    )
