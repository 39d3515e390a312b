"""`rho thumbnails`: beside every shard, a thumbnail of each sample that is small enough to score by the hundred."""

import time
from dataclasses import asdict, dataclass, replace

from rhostream.errors import WorkspaceError
from rhostream.loaders.decode import available_cores
from rhostream.loaders.index import (
    CorpusMetadata,
    Shard,
    Thumbnails,
    metadata_file,
    thumbnail_index,
    thumbnail_tar,
)
from rhostream.loaders.storage import Workspace, is_remote
from rhostream.pipeline.config import ThumbnailsConfig
from rhostream.pipeline.jobs import exclusive_lock, make_units, progress
from rhostream.pipeline.shards import remove_own
from rhostream.pipeline.thumbnails.maker import Part, ShardToDo, ThumbnailMaker

REMOTE_THREADS = 16  # of each process: a remote store makes them wait, not work


@dataclass(frozen=True, kw_only=True)
class ThumbnailsSummary:
    """What the thumbnails hold, and what they cost on disk.

    Attributes:
        name: for instance "64-jpeg".
        splits, rows, bytes: see `Thumbnails`; `original_bytes` is the size of the images that it stands for.
        exact: see `Thumbnails.is_exact`.
        shards, shards_made: shards of these splits, and how many of them this run has made.
    """

    workspace: str
    name: str
    splits: tuple[str, ...]
    rows: int
    bytes: int
    original_bytes: int
    exact: bool
    shards: int
    shards_made: int
    seconds: float


def write_thumbnails(workspace: Workspace | str, config: ThumbnailsConfig) -> ThumbnailsSummary:
    """Write the thumbnails of every shard that has no valid ones yet and, last, `thumbnails/<name>/thumbnails.json`.

    Run again after an interruption, it makes the shards that are missing; the result is the same, byte for byte.
    Splits that were asked for earlier stay.

    Raises:
        WorkspaceError: no finished corpus, no such split, or another process is making them.
        ShardError: an image cannot be read, does not decode, or is not the one that the index describes.
    """
    begin = time.monotonic()
    workspace = Workspace(workspace)
    corpus = CorpusMetadata.read(workspace)
    asked = _asked_for(workspace, corpus, config)
    maker = ThumbnailMaker(workspace=workspace, size=config.size, format=config.format)
    with exclusive_lock(workspace, "rho thumbnails", f"thumbnails/{maker.name}", workers=maker.folder):
        due = [shard for shard in asked if config.overwrite or maker.made(shard) is None]
        _make(maker, due, available_cores() if config.workers is None else config.workers)
        _remove_leftovers(maker, corpus)
        parts = _whole_splits(maker, corpus)
        rows = sum(shard.rows for shard in corpus.split(*parts))
        made = Thumbnails(
            size=config.size,
            format=config.format,
            quality=maker.quality,
            fingerprint=corpus.fingerprint,
            splits=tuple(parts),
            rows=rows,
            bytes=sum(part.bytes for split in parts.values() for part in split),
            shrunk=sum(part.shrunk for split in parts.values() for part in split),
        )
        workspace.write_json(metadata_file(maker.name), asdict(made))
    return ThumbnailsSummary(
        workspace=workspace.location,
        name=made.name,
        splits=made.splits,
        rows=made.rows,
        bytes=made.bytes,
        original_bytes=sum(part.original_bytes for split in parts.values() for part in split),
        exact=made.is_exact,
        shards=sum(len(split) for split in parts.values()),
        shards_made=len(due),
        seconds=time.monotonic() - begin,
    )


def _make(maker: ThumbnailMaker, due: list[Shard], workers: int) -> None:
    workers = min(workers, len(due))
    remote = is_remote(maker.workspace.location) or any(is_remote(shard.tar) for shard in due)
    threads = REMOTE_THREADS if remote else max(1, available_cores() // max(1, workers))
    units = [ShardToDo(number=number, shard=shard) for number, shard in enumerate(due)]
    with progress(f"thumbnails {maker.name}", sum(shard.rows for shard in due), "samples") as bar:
        for _ in make_units(replace(maker, threads=threads), units, workers=workers, advance=bar.advance):
            pass


def _asked_for(workspace: Workspace, corpus: CorpusMetadata, config: ThumbnailsConfig) -> tuple[Shard, ...]:
    known = {shard.split for shard in corpus.shards}
    for split in config.splits:
        if split not in known:
            raise WorkspaceError(
                f"workspace {workspace.location!r} has no split {split!r}; there is {', '.join(sorted(known))}: name "
                "one of those"
            )
    return corpus.split(*config.splits)


def _whole_splits(maker: ThumbnailMaker, corpus: CorpusMetadata) -> dict[str, list[Part]]:
    """The parts of every split of which no shard is missing."""
    found: dict[str, list[Part | None]] = {}
    for shard in corpus.shards:
        found.setdefault(shard.split, []).append(maker.made(shard))
    return {
        split: [part for part in parts if part is not None]
        for split, parts in sorted(found.items())
        if None not in parts
    }


def _remove_leftovers(maker: ThumbnailMaker, corpus: CorpusMetadata) -> None:
    """What is there of shards that the corpus no longer has, and of killed writers."""
    files = [file_of(maker.name, shard.name) for file_of in (thumbnail_tar, thumbnail_index) for shard in corpus.shards]
    keep: dict[str, set[str]] = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        keep.setdefault(folder, set()).add(name)
    remove_own(maker.workspace, keep)
