"""`rho view`: beside every shard, a rendition of each sample that is small enough to score by the hundred."""

import time
from dataclasses import asdict, dataclass, replace
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
)
from rhostream.loaders.workspace import Workspace
from rhostream.pipeline.lock import only_writer
from rhostream.pipeline.own_files import remove_own
from rhostream.pipeline.progress import progress
from rhostream.pipeline.renditions import Part, RenditionMaker, ShardToDo
from rhostream.pipeline.unit_workers import make_units

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
        exact: see `ScoringView.is_exact`.
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
    maker = RenditionMaker(workspace=workspace, size=config.size, format=config.format)
    with only_writer(workspace, "rho view", f"views/{maker.view}", workers=maker.folder):
        due = [shard for shard in asked if config.overwrite or maker.made(shard) is None]
        _make(maker, due, available_cores() if config.workers is None else config.workers)
        _remove_leftovers(maker, corpus)
        parts = _whole_splits(maker, corpus)
        rows = sum(shard.rows for shard in corpus.split(*parts))
        view = ScoringView(
            size=config.size,
            format=config.format,
            quality=maker.quality,
            fingerprint=corpus.fingerprint,
            splits=tuple(parts),
            rows=rows,
            bytes=sum(part.bytes for split in parts.values() for part in split),
            shrunk=sum(part.shrunk for split in parts.values() for part in split),
        )
        workspace.write_json(view_card(maker.view), asdict(view))
    return ScoringViewSummary(
        workspace=workspace.location,
        name=view.name,
        splits=view.splits,
        rows=view.rows,
        bytes=view.bytes,
        original_bytes=sum(part.original_bytes for split in parts.values() for part in split),
        exact=view.is_exact,
        shards=sum(len(split) for split in parts.values()),
        shards_made=len(due),
        seconds=time.monotonic() - begin,
    )


def _make(maker: RenditionMaker, due: list[Shard], workers: int) -> None:
    workers = min(workers, len(due))
    remote = is_remote(maker.workspace.location) or any(is_remote(shard.tar) for shard in due)
    threads = REMOTE_THREADS if remote else max(1, available_cores() // max(1, workers))
    units = [ShardToDo(number=number, shard=shard) for number, shard in enumerate(due)]
    with progress(f"view {maker.view}", sum(shard.rows for shard in due), "samples") as bar:
        for _ in make_units(replace(maker, threads=threads), units, workers=workers, advance=bar.advance):
            pass


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


def _remove_leftovers(maker: RenditionMaker, corpus: CorpusCard) -> None:
    """What is there of shards that the corpus no longer has, and of killed writers."""
    files = [file_of(maker.view, shard.name) for file_of in (rendition_tar, rendition_index) for shard in corpus.shards]
    keep: dict[str, set[str]] = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        keep.setdefault(folder, set()).add(name)
    remove_own(maker.workspace, keep)
