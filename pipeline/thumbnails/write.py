"""`rho thumbnails`: beside every shard, a thumbnail of each sample that is small enough to score by the hundred."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

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
from rhostream.pipeline.jobs import Engine, chosen_engine, exclusive_lock, make_units, progress, read_ahead
from rhostream.pipeline.shards import remove_own
from rhostream.pipeline.thumbnails.maker import Part, ShardToDo, ThumbnailMaker

_READ_AHEAD: Final = 8  # indexes being read
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
    engine = chosen_engine(config.engine, config.workers)
    corpus = CorpusMetadata.read(workspace)
    asked = _asked_for(workspace, corpus, config)
    maker = ThumbnailMaker(workspace=workspace, size=config.size, format=config.format)
    folder = f"thumbnails/{maker.name}"
    with exclusive_lock(workspace, "rho thumbnails", folder, workers=maker.folder, engine=engine):
        numbered = [ShardToDo(number=number, shard=shard) for number, shard in enumerate(asked)]
        mine = [unit for unit in numbered if engine.makes(unit.number)]
        there = read_ahead(maker.made, (unit.shard for unit in mine), _READ_AHEAD)
        due = [unit for unit, part in zip(mine, there, strict=True) if config.overwrite or part is None]
        _make(maker, due, engine)
        parts = _whole_splits(maker, corpus)
        if not engine.is_shared or set(config.splits) <= set(parts):
            _remove_leftovers(maker, corpus)
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
        if made.splits:
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


def _make(maker: ThumbnailMaker, due: Sequence[ShardToDo], engine: Engine) -> None:
    remote = is_remote(maker.workspace.location) or any(is_remote(unit.shard.tar) for unit in due)
    threads = max(1, available_cores() // max(1, min(engine.processes, len(due))))
    if engine.name == "ray":
        threads = 1  # an actor has one core
    maker = replace(maker, threads=REMOTE_THREADS if remote else threads)
    with progress(f"thumbnails {maker.name}", sum(unit.shard.rows for unit in due), "samples") as bar:
        for _ in make_units(maker, due, engine=engine, advance=bar.advance):
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
    for shard, part in zip(corpus.shards, read_ahead(maker.made, corpus.shards, _READ_AHEAD), strict=True):
        found.setdefault(shard.split, []).append(part)
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
