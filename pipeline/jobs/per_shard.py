"""Stages that make something of every shard: which shards they were asked for, and which are still to do."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from rhostream.errors import WorkspaceError
from rhostream.loaders.index import CorpusMetadata, Shard
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.jobs.ahead import read_ahead
from rhostream.pipeline.jobs.engine import Engine
from rhostream.pipeline.jobs.maker import Maker
from rhostream.pipeline.jobs.progress_bar import progress
from rhostream.pipeline.jobs.units import make_units

_READ_AHEAD: Final = 8  # parts being read

Part = TypeVar("Part")


@dataclass(frozen=True, kw_only=True)
class ShardUnit:
    """A shard as a unit of work."""

    number: int
    shard: Shard


Unit = TypeVar("Unit", bound=ShardUnit)


def shards_asked_for(
    workspace: Workspace, corpus: CorpusMetadata, splits: Sequence[str], only: Sequence[str] = ()
) -> Sequence[Shard]:
    """Those of the splits, or those that `only` names.

    Raises:
        WorkspaceError: no such split or shard.
    """
    names, known_splits = {*corpus.shards.names}, {*corpus.shards.splits}
    kind, asked, known = ("shard", only, names) if only else ("split", splits, known_splits)
    missing = next((name for name in asked if name not in known), None)
    if missing is not None:
        close = sorted(known) if not only else difflib.get_close_matches(missing, known, 1) or sorted(known)[:5]
        raise WorkspaceError(
            f"workspace {workspace.location!r} has no {kind} {missing!r}; there is {', '.join(close)}: name one of "
            "those"
        )
    return tuple(shard for shard in corpus.shards if shard.name in only) if only else corpus.split(*splits)


def units_of(shards: Iterable[Shard], engine: Engine) -> list[ShardUnit]:
    """The units that this process sees to.

    They are shared out before anybody looks at what is done, so that jobs which start at different times agree.
    """
    return [ShardUnit(number=number, shard=shard) for number, shard in enumerate(shards) if engine.makes(number)]


def units_due(
    units: Sequence[ShardUnit], is_made: Callable[[Shard], bool], *, overwrite: bool = False
) -> list[ShardUnit]:
    """Those of which nothing, or nothing valid, is there yet; all of them to overwrite it."""
    there = read_ahead(is_made, (unit.shard for unit in units), _READ_AHEAD)
    return [unit for unit, is_there in zip(units, there, strict=True) if overwrite or not is_there]


def make_shards(maker: Maker[Unit, Any], units: Sequence[Unit], engine: Engine, what: str) -> None:
    """Make the units; `what` begins the lines that tell of progress, in samples."""
    with progress(what, sum(unit.shard.rows for unit in units), "samples") as bar:
        for _ in make_units(maker, units, engine=engine, advance=bar.advance):
            pass


def whole_splits(corpus: CorpusMetadata, made: Callable[[Shard], Part | None]) -> dict[str, list[Part]]:
    """What is there of every split of which no shard is missing."""
    found: dict[str, list[Part | None]] = {}
    for shard, part in zip(corpus.shards, read_ahead(made, corpus.shards, _READ_AHEAD), strict=True):
        found.setdefault(shard.split, []).append(part)
    return {
        split: [part for part in parts if part is not None]
        for split, parts in sorted(found.items())
        if None not in parts
    }
