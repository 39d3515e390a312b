"""`rho thumbnails`: beside every shard, a thumbnail of each sample that is small enough to score by the hundred."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from rhostream.errors import ConfigError
from rhostream.loaders.decode import available_cores
from rhostream.loaders.index import (
    CorpusMetadata,
    Thumbnails,
    metadata_file,
    thumbnail_index,
    thumbnail_tar,
)
from rhostream.loaders.storage import Workspace, is_remote
from rhostream.pipeline.config import ThumbnailsConfig
from rhostream.pipeline.jobs import (
    Engine,
    ShardUnit,
    chosen_engine,
    exclusive_lock,
    make_shards,
    shards_asked_for,
    units_due,
    units_of,
    whole_splits,
)
from rhostream.pipeline.shards import remove_own
from rhostream.pipeline.thumbnails.maker import ThumbnailMaker

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
        ConfigError: the corpus has texts.
        WorkspaceError: no finished corpus, no such split, or another process is making them.
        ShardError: an image cannot be read, does not decode, or is not the one that the index describes.
    """
    begin = time.monotonic()
    workspace = Workspace(workspace)
    engine = chosen_engine(config.engine, config.workers)
    corpus = CorpusMetadata.read(workspace)
    if "image" not in corpus.fields:
        raise ConfigError(f"workspace {workspace.location!r} has texts, not images: tokenize them")
    asked = shards_asked_for(workspace, corpus, config.splits)
    maker = ThumbnailMaker(workspace=workspace, size=config.size, format=config.format)
    folder = f"thumbnails/{maker.name}"
    with exclusive_lock(workspace, "rho thumbnails", folder, workers=maker.folder, engine=engine):
        due = units_due(
            units_of(asked, engine), lambda shard: maker.made(shard) is not None, overwrite=config.overwrite
        )
        _make(maker, due, engine)
        parts = whole_splits(corpus, maker.made)
        if not engine.is_shared or set(config.splits) <= set(parts):
            _remove_leftovers(maker, corpus)
        rows = corpus.split(*parts).samples
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


def _make(maker: ThumbnailMaker, due: Sequence[ShardUnit], engine: Engine) -> None:
    remote = is_remote(maker.workspace.location) or any(is_remote(unit.shard.tar) for unit in due)
    threads = max(1, available_cores() // max(1, min(engine.processes, len(due))))
    if engine.name == "ray":
        threads = 1  # an actor has one core
    maker = replace(maker, threads=REMOTE_THREADS if remote else threads)
    make_shards(maker, due, engine, f"thumbnails {maker.name}")


def _remove_leftovers(maker: ThumbnailMaker, corpus: CorpusMetadata) -> None:
    """What is there of shards that the corpus no longer has, and of killed writers."""
    files = [file_of(maker.name, shard.name) for file_of in (thumbnail_tar, thumbnail_index) for shard in corpus.shards]
    keep: dict[str, set[str]] = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        keep.setdefault(folder, set()).add(name)
    remove_own(maker.workspace, keep)
