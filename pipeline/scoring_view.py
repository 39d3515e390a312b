"""`rho view`: beside every shard, a rendition of each sample that is small enough to score by the hundred."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import get_args

from rhostream.errors import ConfigError, WorkspaceError
from rhostream.loaders.index import CorpusCard, Shard
from rhostream.loaders.reading import available_cores
from rhostream.loaders.remote import is_remote
from rhostream.loaders.scoring_view import (
    RenditionFormat,
    ScoringView,
    rendition_index,
    rendition_tar,
    view_card,
    view_name,
)
from rhostream.loaders.workspace import TEMPORARY_SUFFIX, Workspace
from rhostream.pipeline.lock import hold_as_worker, only_writer
from rhostream.pipeline.processes import in_processes
from rhostream.pipeline.progress import progress
from rhostream.pipeline.renditions import Part, RenditionMaker

REMOTE_THREADS = 16  # of each process: a remote store makes them wait, not work


@dataclass(frozen=True, kw_only=True)
class ScoringViewConfig:
    """Which scoring view to make, of which shards.

    Attributes:
        size: shorter side of the renditions, pixels.
        format: "jpeg" or "raw", see `rhostream.loaders.scoring_view.ScoringView`.
        splits: whose shards; candidates come from "train".
        workers: local processes, each making whole shards; 0 works in this one, None takes one per core. The result
            is the same.
        overwrite: make again what is already made.
    """

    size: int = 64
    format: RenditionFormat = "jpeg"
    splits: tuple[str, ...] = ("train",)
    workers: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"scoring view of {self.size} pixels: give 1 or more, for instance 64")
        if self.format not in get_args(RenditionFormat):
            raise ConfigError(f"scoring view format {self.format!r}: choose 'jpeg' or 'raw'")
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"scoring view workers {self.workers}: give 0 or more")


@dataclass(frozen=True, kw_only=True)
class ScoringViewSummary:
    """What the scoring view holds, and what it costs on disk.

    Attributes:
        name: for instance "64-jpeg".
        splits, rows, bytes: see `ScoringView`; `original_bytes` is the size of the images that it stands for.
        shards, shards_made: shards of these splits, and how many of them this run has made.
    """

    workspace: str
    name: str
    splits: tuple[str, ...]
    rows: int
    bytes: int
    original_bytes: int
    shards: int
    shards_made: int
    seconds: float


def write_scoring_view(workspace: Workspace | str, config: ScoringViewConfig) -> ScoringViewSummary:
    """Write the renditions of every shard asked for that has no valid ones yet and, last, `views/<name>/view.json`.

    Run again after an interruption, it makes the shards that are missing; the result is the same, byte for byte.
    Splits that were asked for earlier stay.

    Raises:
        WorkspaceError: no finished corpus, no such split, or another process is making this view.
        ShardError: an image cannot be read, does not decode, or is not the one that the index describes.
    """
    begin = time.monotonic()
    workspace = Workspace(workspace)
    corpus = CorpusCard.read(workspace)
    asked = _asked_for(workspace, corpus, config)
    name = view_name(config.size, config.format)
    processes = available_cores() if config.workers is None else config.workers
    remote = is_remote(workspace.location) or any(is_remote(shard.tar) for shard in asked)
    threads = REMOTE_THREADS if remote else max(1, available_cores() // max(1, processes))
    maker = RenditionMaker(workspace, size=config.size, rendition_format=config.format, threads=threads)
    with only_writer(workspace, "rho view", f"views/{name}", workers=f"views/{name}/shards"):
        due = [shard for shard in asked if config.overwrite or maker.made(shard) is None]
        start = partial(_start_worker if processes else _start, maker, f"views/{name}/shards")
        with progress(f"view {name}", sum(shard.rows for shard in due), "samples") as bar:
            for part in in_processes(start, due, processes):
                bar.advance(part.rows)
        _remove_leftovers(workspace, name, corpus)
        parts = _whole_splits(maker, corpus)
        view = ScoringView(
            size=config.size,
            format=config.format,
            quality=maker.quality,
            fingerprint=corpus.fingerprint,
            splits=tuple(parts),
            rows=sum(part.rows for split in parts.values() for part in split),
            bytes=sum(part.bytes for split in parts.values() for part in split),
        )
        workspace.write_json(view_card(name), asdict(view))
    return ScoringViewSummary(
        workspace=workspace.location,
        name=name,
        splits=view.splits,
        rows=view.rows,
        bytes=view.bytes,
        original_bytes=sum(part.original_bytes for split in parts.values() for part in split),
        shards=sum(len(split) for split in parts.values()),
        shards_made=len(due),
        seconds=time.monotonic() - begin,
    )


def _start(maker: RenditionMaker, folder: str, number: int) -> Callable[[Shard], Part]:
    return maker.make


def _start_worker(maker: RenditionMaker, folder: str, number: int) -> Callable[[Shard], Part]:
    hold_as_worker(maker.workspace, folder)
    return maker.make


def _asked_for(workspace: Workspace, corpus: CorpusCard, config: ScoringViewConfig) -> tuple[Shard, ...]:
    known = {shard.split for shard in corpus.shards}
    for split in config.splits:
        if split not in known:
            raise WorkspaceError(
                f"workspace {workspace.location!r} has no split {split!r}; there is {', '.join(sorted(known))}: name "
                "one of those"
            )
    return corpus.split(*config.splits)


def _whole_splits(maker: RenditionMaker, corpus: CorpusCard) -> dict[str, list[Part]]:
    """The parts of every split of which no shard is missing."""
    found: dict[str, list[Part | None]] = {}
    for shard in corpus.shards:
        found.setdefault(shard.split, []).append(maker.made(shard))
    return {
        split: [part for part in parts if part is not None]
        for split, parts in sorted(found.items())
        if None not in parts
    }


def _remove_leftovers(workspace: Workspace, view: str, corpus: CorpusCard) -> None:
    """What is there of shards that the corpus no longer has, and of killed writers."""
    names = {shard.name for shard in corpus.shards}
    for file_of, suffix in ((rendition_tar, ".tar"), (rendition_index, ".parquet")):
        folder = file_of(view, "").rpartition("/")[0]
        for file in workspace.names(folder, suffix):
            if file.removesuffix(suffix) not in names:
                workspace.remove(f"{folder}/{file}")
        if workspace.is_local:
            for temporary in Path(workspace.path(folder)).glob(f"*{TEMPORARY_SUFFIX}"):
                temporary.unlink()
