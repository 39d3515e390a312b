"""Thumbnails: beside every shard, a small copy of each sample that is cheap to read and decode.

A raw one of images that are no larger than its size is exact: their very pixels, to score and to train on.
`thumbnails/<name>/shards/<shard>.tar` holds them in the order of the shard,
`thumbnails/<name>/index/<shard>.parquet` says where.
"""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rhostream.errors import Remedy, Stage, WorkspaceError
from rhostream.former import THUMBNAILS_FOLDER as FORMER_FOLDER
from rhostream.loaders.decode import ImageSpec, InputSpec
from rhostream.loaders.index.columns import values
from rhostream.loaders.index.corpus_metadata import SHARD_DIGEST_KEY, CorpusMetadata, ShardRows
from rhostream.loaders.storage import UnreadableError, Workspace

_log = logging.getLogger(__name__)

ThumbnailFormat = Literal["jpeg", "raw"]

#: Metadata of `thumbnails/<name>/index/<shard>.parquet`, beside `SHARD_DIGEST_KEY`: how its thumbnails were made.
THUMBNAIL_KEY = b"rhostream.thumbnail"

#: One row per sample of the shard, in its order: `thumbnails/<name>/index/<shard>.parquet`.
THUMBNAIL_INDEX = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),  # first byte of the thumbnail inside its tar
        pa.field("size", pa.int64(), nullable=False),  # bytes
        pa.field("content_hash", pa.string(), nullable=False),  # of the thumbnail
    ]
)


@dataclass(frozen=True, kw_only=True)
class Thumbnails:
    """`thumbnails/<name>/thumbnails.json`, which is written last.

    Attributes:
        size: the shorter side of every thumbnail, pixels (that of the sample where it is smaller).
        format: "jpeg" (of `quality`, small) or "raw" (binary PPM, or PGM where gray: exact, nothing to decode).
        quality: of the JPEGs; 0 for raw.
        fingerprint: of the corpus it was made for.
        splits: those of which it holds every shard.
        rows, bytes: samples of these splits, and the size of their thumbnails' tars.
        shrunk: thumbnails with fewer pixels than their sample.
    """

    size: int
    format: ThumbnailFormat
    quality: int
    fingerprint: str
    splits: tuple[str, ...]
    rows: int
    bytes: int
    shrunk: int

    @property
    def name(self) -> str:
        return thumbnails_name(self.size, self.format)

    @property
    def is_exact(self) -> bool:
        """Does every thumbnail hold the very pixels of its sample?"""
        return self.format == "raw" and not self.shrunk

    def shows(self, spec: InputSpec) -> bool:
        """Are the pixels of `spec` the same, made of thumbnails or of samples? Then thumbnails serve for training, too.

        At a smaller size, a JPEG sample would have been shrunk as it was decoded.
        """
        return isinstance(spec, ImageSpec) and self.is_exact and self.size <= spec.size

    @classmethod
    def read(cls, workspace: Workspace, corpus: CorpusMetadata, name: str) -> Self:
        """Raises WorkspaceError where there are no such thumbnails, or they are of other shards."""
        file = metadata_file(name)
        if not workspace.exists(file):
            if name in workspace.names(FORMER_FOLDER):
                raise WorkspaceError(
                    f"thumbnails {name!r} in {workspace.path(FORMER_FOLDER)} are of a former release, which this one "
                    "does not read",
                    thumbnails_remedy(workspace, name),
                )
            known = ", ".join(workspace.names("thumbnails")) or "none"
            raise WorkspaceError(
                f"thumbnails {name!r}: workspace {workspace.location!r} has no {file} (there are: {known})",
                thumbnails_remedy(workspace, name),
            )
        found = workspace.read_record(file, cls)
        with workspace.reading(file):
            if found.name != name:
                raise UnreadableError(f"is of the thumbnails {found.name!r}")
        if found.fingerprint != corpus.fingerprint:
            raise WorkspaceError(
                f"thumbnails {name!r} are of another split of the corpus than the shards",
                thumbnails_remedy(workspace, name),
            )
        return found


@dataclass(frozen=True, kw_only=True)
class ThumbnailRows:
    """Where the thumbnails of one shard lie, each column of the shard's length and in its order."""

    tar: str
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    hashes: pa.StringArray


def thumbnails_name(size: int, thumbnail_format: ThumbnailFormat) -> str:
    """For instance "64-jpeg"."""
    return f"{size}-{thumbnail_format}"


def metadata_file(name: str) -> str:
    return f"thumbnails/{name}/thumbnails.json"


def thumbnails_remedy(workspace: Workspace, name: str, split: str = "train", *, overwrite: bool = False) -> Remedy:
    """What makes the thumbnails of a split."""
    size, _, kind = name.partition("-")
    settings: dict[str, str | bool] = {"size": size, "format": kind, "split": split}
    return Remedy(Stage.THUMBNAILS, workspace.location, settings | ({"overwrite": True} if overwrite else {}))


def current_thumbnails(workspace: Workspace, corpus: CorpusMetadata) -> list[Thumbnails]:
    """The finished thumbnails of the shards as they are now; others are warned of."""
    made = []
    finished = [name for name in workspace.names("thumbnails") if workspace.exists(metadata_file(name))]
    for name in sorted({*finished, *workspace.names(FORMER_FOLDER)}):
        try:
            made.append(Thumbnails.read(workspace, corpus, name))
        except WorkspaceError as error:
            _log.warning("not used: %s", error)
    return made


def exact_thumbnails(made: Iterable[Thumbnails], spec: InputSpec, splits: Collection[str]) -> str | None:
    """Name of the one among `made` that holds the very pixels of `spec` for all these splits, or None."""
    fitting = [each for each in made if each.shows(spec) and {*splits} <= {*each.splits}]
    return max(fitting, key=lambda each: (each.size, each.name)).name if fitting else None


def thumbnail_tar(name: str, shard: str) -> str:
    return f"thumbnails/{name}/shards/{shard}.tar"


def thumbnail_index(name: str, shard: str) -> str:
    return f"thumbnails/{name}/index/{shard}.parquet"


def read_thumbnail_rows(workspace: Workspace, name: str, rows: ShardRows) -> ThumbnailRows:
    """The index of one shard's thumbnails.

    Raises:
        WorkspaceError: it is missing, or was made from another shard than `rows` describes.
    """
    file = thumbnail_index(name, rows.shard.name)
    if not workspace.exists(file):
        raise WorkspaceError(f"{workspace.path(file)} is missing", thumbnails_remedy(workspace, name, rows.shard.split))
    table = workspace.read_table(file, schema=THUMBNAIL_INDEX)
    digest = (table.schema.metadata or {}).get(SHARD_DIGEST_KEY)
    if digest != rows.shard.digest.encode() or not table.column("key").combine_chunks().equals(rows.keys):
        raise WorkspaceError(
            f"{workspace.path(file)} describes other samples than shard {rows.shard.name} holds",
            thumbnails_remedy(workspace, name, rows.shard.split),
        )
    return ThumbnailRows(
        tar=thumbnail_tar(name, rows.shard.name),
        offsets=values(table.column("offset")),
        sizes=values(table.column("size")),
        hashes=table.column("content_hash").combine_chunks(),
    )
