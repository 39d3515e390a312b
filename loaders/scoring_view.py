"""The scoring view: beside every shard, a small rendition of each sample that is cheap to read and decode.

A raw one of images that are no larger than its size is exact: their very pixels, to score and to train on.
`views/<name>/shards/<shard>.tar` holds them in the order of the shard, `views/<name>/index/<shard>.parquet` says where.
"""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rhostream.errors import WorkspaceError
from rhostream.loaders.columns import values
from rhostream.loaders.index import SHARD_DIGEST_KEY, CorpusCard, ShardRows
from rhostream.loaders.view import View
from rhostream.loaders.workspace import Workspace

_log = logging.getLogger(__name__)

RenditionFormat = Literal["jpeg", "raw"]

#: Metadata of a shard's `views/<name>/index/<shard>.parquet`, beside `SHARD_DIGEST_KEY`: how its renditions were made.
RENDITION_KEY = b"rhostream.rendition"

#: One row per sample of the shard, in its order: `views/<name>/index/<shard>.parquet`.
RENDITIONS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),  # first byte of the rendition inside its tar
        pa.field("size", pa.int64(), nullable=False),  # bytes
        pa.field("content_hash", pa.string(), nullable=False),  # of the rendition
    ]
)


@dataclass(frozen=True, kw_only=True)
class ScoringView:
    """`views/<name>/view.json`, which is written last.

    Attributes:
        size: the shorter side of every rendition, pixels (that of the sample where it is smaller).
        format: "jpeg" (of `quality`, small) or "raw" (binary PPM, or PGM where grey: exact, nothing to decode).
        quality: of the JPEGs; 0 for raw.
        fingerprint: of the corpus it was made for.
        splits: those of which it holds every shard.
        rows, bytes: samples of these splits, and the size of their renditions' tars.
        shrunk: renditions with fewer pixels than their sample.
    """

    size: int
    format: RenditionFormat
    quality: int
    fingerprint: str
    splits: tuple[str, ...]
    rows: int
    bytes: int
    shrunk: int

    @property
    def name(self) -> str:
        return view_name(self.size, self.format)

    @property
    def is_exact(self) -> bool:
        """Does every rendition hold the very pixels of its sample?"""
        return self.format == "raw" and not self.shrunk

    def shows(self, view: View) -> bool:
        """Are a view's pixels the same, made of the renditions or of the samples? Then they serve for training, too.

        For a smaller view, a JPEG sample would have been shrunk as it was decoded.
        """
        return self.is_exact and self.size <= view.size

    @classmethod
    def read(cls, workspace: Workspace, card: CorpusCard, name: str) -> Self:
        """Raises WorkspaceError where there is no such view, or it is of other shards."""
        file = view_card(name)
        if not workspace.exists(file):
            known = ", ".join(workspace.names("views")) or "none"
            raise WorkspaceError(
                f"scoring view {name!r}: workspace {workspace.location!r} has no {file} (views there: {known}); "
                f"run `rho view --workspace {workspace.location} --size PIXELS --format FORMAT` to the end"
            )
        written: dict[str, Any] = workspace.read_json(file)
        try:
            view = cls(**{**written, "splits": tuple(written["splits"])})
        except (KeyError, TypeError) as error:
            raise WorkspaceError(
                f"{workspace.path(file)} is no card of a scoring view ({error!r}): run `rho view` again"
            ) from error
        if view.fingerprint != card.fingerprint:
            raise WorkspaceError(
                f"scoring view {name!r} is of another split of the corpus than the shards are now: run `rho view` again"
            )
        return view


@dataclass(frozen=True, kw_only=True)
class RenditionRows:
    """Where the renditions of one shard lie, each column of the shard's length and in its order."""

    tar: str
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    hashes: pa.StringArray


def view_name(size: int, rendition_format: RenditionFormat) -> str:
    """For instance "64-jpeg"."""
    return f"{size}-{rendition_format}"


def view_card(view: str) -> str:
    return f"views/{view}/view.json"


def view_command(workspace: Workspace, view: str, split: str) -> str:
    """What a user types to make a view of a split."""
    size, _, rendition_format = view.partition("-")
    return f"rho view --workspace {workspace.location} --size {size} --format {rendition_format} --split {split}"


def current_views(workspace: Workspace, card: CorpusCard) -> list[ScoringView]:
    """The finished scoring views of the shards as they are now; others are warned of."""
    views = []
    for name in workspace.names("views"):
        if not workspace.exists(view_card(name)):
            continue
        try:
            views.append(ScoringView.read(workspace, card, name))
        except WorkspaceError as error:
            _log.warning("not used: %s", error)
    return views


def exact_view(views: Iterable[ScoringView], view: View, splits: Collection[str]) -> str | None:
    """Name of the one among `views` that holds the very pixels of `view` for all these splits, or None."""
    fitting = [each for each in views if each.shows(view) and {*splits} <= {*each.splits}]
    return max(fitting, key=lambda each: (each.size, each.name)).name if fitting else None


def rendition_tar(view: str, shard: str) -> str:
    return f"views/{view}/shards/{shard}.tar"


def rendition_index(view: str, shard: str) -> str:
    return f"views/{view}/index/{shard}.parquet"


def read_rendition_rows(workspace: Workspace, view: str, rows: ShardRows) -> RenditionRows:
    """The index of one shard's renditions.

    Raises:
        WorkspaceError: it is missing, or was made from another shard than `rows` describes.
    """
    name = rendition_index(view, rows.shard.name)
    remedy = f"run `{view_command(workspace, view, rows.shard.split)}`, it makes what is missing"
    if not workspace.exists(name):
        raise WorkspaceError(f"{workspace.path(name)} is missing: {remedy}")
    table = workspace.read_table(name)
    digest = (table.schema.metadata or {}).get(SHARD_DIGEST_KEY, b"").decode()
    if digest != rows.shard.digest or not table.column("key").combine_chunks().equals(rows.keys):
        raise WorkspaceError(
            f"{workspace.path(name)} describes other samples than shard {rows.shard.name} holds: {remedy}"
        )
    return RenditionRows(
        tar=rendition_tar(view, rows.shard.name),
        offsets=values(table.column("offset")),
        sizes=values(table.column("size")),
        hashes=table.column("content_hash").combine_chunks(),
    )
