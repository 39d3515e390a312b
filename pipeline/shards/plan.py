"""The units of `rho shards`: of a corpus as it is listed now, and of what the workspace holds already."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

import pyarrow as pa

from rhostream.errors import WorkspaceError
from rhostream.loaders.decode import available_cores
from rhostream.loaders.index import METADATA_NAME, Appended, CorpusMetadata
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora import Corpus, Entry
from rhostream.pipeline.jobs import read_ahead, require_same
from rhostream.pipeline.shards.clean_list import CleanList
from rhostream.pipeline.shards.growth import appended_now, growth_of, parts_of
from rhostream.pipeline.shards.listed_rows import listing_schema
from rhostream.pipeline.shards.listing import Listing, Unit, list_entries
from rhostream.pipeline.shards.noise import columns_with_noise, with_noise
from rhostream.pipeline.shards.own_files import own_names
from rhostream.pipeline.shards.refusals import Refusals, add_refusals, refuse_mostly_bad
from rhostream.pipeline.shards.scratch import Scratch
from rhostream.pipeline.shards.unit import UnitMaker, UnitRecord

REMEDY: Final = "name another --workspace, or remake it with --overwrite"
_GROW: Final = "add what is new with --append"
_MADE: Final = "workspace {!r} holds shards made"


@dataclass(frozen=True, kw_only=True)
class PlannedPart:
    """Units of one run: the first, or one that has appended.

    Attributes:
        state: "fixed": its entries are those that it was made from; "kept": they have changed since, and the units stay
            as they are; "new": it is being appended.
    """

    units: range
    listing: Listing
    maker: UnitMaker
    state: Literal["fixed", "kept", "new"] = "fixed"


@dataclass(frozen=True, kw_only=True)
class ShardsPlan:
    """All units of the workspace, part by part.

    Attributes:
        appended: what the card will tell of all parts but the first.
        added, removed, changed: see `ShardsSummary`.
    """

    parts: Sequence[PlannedPart]
    appended: Sequence[Appended] = ()
    added: int = 0
    removed: int = 0
    changed: int = 0

    @property
    def units(self) -> int:
        return self.parts[-1].units.stop

    @property
    def maker(self) -> UnitMaker:
        """Of the last part; all make units of the same settings."""
        return self.parts[-1].maker


def plan_shards(
    workspace: Workspace, corpus: Corpus, manifest: Manifest, scratch: Scratch, *, append: bool, overwrite: bool
) -> ShardsPlan:
    """List the corpus, and compare it with what the workspace holds, where that may be appended to.

    Raises:
        WorkspaceError: it holds a corpus of other settings, or one that this one has not grown from.
    """
    maker = UnitMaker(
        workspace=workspace,
        corpus=corpus,
        extra_columns=_extra_columns(corpus, manifest),
        manifest=manifest,
        listed=0,
    )
    there = None if overwrite else corpus_there(workspace)
    if there is None or not (append or there.appended):
        listing = list_corpus(corpus, manifest, scratch)
        refuse_mostly_bad(listing.refused, listing.entries, manifest)
        made = replace(maker, listed=listing.entries)
        return ShardsPlan(parts=[PlannedPart(units=range(listing.units), listing=listing, maker=made)])
    settings = maker.settings()
    require_same(_MADE.format(workspace.location), settings | _settings_written(workspace, settings), settings, REMEDY)
    parts = parts_of(workspace, manifest.shard_size, there.appended)
    growth = growth_of(maker, _entries(corpus, manifest, scratch), parts, scratch)
    changes = f"{growth.removed} of its entries are gone from it, {growth.changed} differ"
    is_same = not growth.removed and not growth.changed
    if not append and not is_same:
        raise WorkspaceError(_other(workspace, changes))
    added = growth.added
    if not append and added.entries:
        raise WorkspaceError(
            f"workspace {workspace.location!r} lacks {added.entries} entries that the corpus lists now: add them with "
            f"--append, or {REMEDY}"
        )
    planned = [
        PlannedPart(
            units=part.units,
            listing=listing,
            maker=replace(maker, listed=part.listed),
            state="fixed" if is_same else "kept",
        )
        for listing, part in zip(growth.parts, parts, strict=True)
    ]
    appended = [*there.appended]
    if added.entries:
        refused = Refusals()
        for listing in (*growth.parts, added):
            add_refusals(refused, listing.refused)
        refuse_mostly_bad(refused, sum(listing.entries for listing in (*growth.parts, added)), manifest)
        made = replace(maker, listed=parts[-1].listed + added.entries)
        units = range(added.first, added.first + added.units)
        planned.append(PlannedPart(units=units, listing=added, maker=made, state="new"))
        appended.append(appended_now(added, there.fingerprint))
    return ShardsPlan(
        parts=planned,
        appended=appended,
        added=added.entries,
        removed=growth.removed,
        changed=growth.changed,
    )


def list_corpus(corpus: Corpus, manifest: Manifest, scratch: Scratch) -> Listing:
    return list_entries(
        _entries(corpus, manifest, scratch),
        scratch,
        classes=len(corpus.classes),
        seed=manifest.seed,
        unit_size=manifest.shard_size,
        extra_columns=_extra_columns(corpus, manifest),
    )


def _entries(corpus: Corpus, manifest: Manifest, scratch: Scratch) -> Iterator[Entry]:
    """Those that the corpus lists, with noise and clean list."""
    entries = corpus.entries()
    if manifest.noise is not None:
        entries = iter(with_noise(entries, manifest.noise, corpus.classes))
    if manifest.clean_list:
        schema = listing_schema(_extra_columns(corpus, manifest))
        entries = CleanList.read(manifest.clean_list).applied(entries, corpus.classes, schema, scratch)
    return entries


def _extra_columns(corpus: Corpus, manifest: Manifest) -> Mapping[str, pa.DataType]:
    return corpus.extra_columns if manifest.noise is None else columns_with_noise(corpus.extra_columns)


def finished_units(
    plan: ShardsPlan, wanted: Callable[[int], bool], *, read_tars: bool = True
) -> dict[int, UnitRecord | None]:
    """The records of the units whose numbers are wanted, None where one is still to make.

    Args:
        read_tars: compare each tar with what was written, to its last byte.

    Raises:
        WorkspaceError: the workspace holds units of other settings or of another listing, or one that must be made
            again from entries that have changed.
    """
    maker = plan.maker
    workspace, settings = maker.workspace, maker.settings()
    what = _MADE.format(workspace.location)
    require_same(what, settings | _settings_written(workspace, settings), settings, REMEDY)
    found: dict[int, UnitRecord | None] = {}
    for part in plan.parts:
        asked = [number for number in part.units if wanted(number)]
        if part.state == "kept":
            kept = partial(_record_kept, part.maker, read_tars=read_tars)
            found.update(zip(asked, read_ahead(kept, asked, available_cores()), strict=True))
        else:
            compared = partial(_record, part, settings, read_tars=read_tars)
            units = map(part.listing.unit, asked)
            found.update(zip(asked, read_ahead(compared, units, available_cores()), strict=True))
    there = (int(name.partition(".")[0]) for name in own_names(workspace, "rejects"))
    beyond = [number for number in there if number >= plan.units]
    if beyond:
        raise WorkspaceError(_other(workspace, f"it has {len(beyond)} more units than this corpus"))
    return found


def _record(part: PlannedPart, settings: dict[str, Any], unit: Unit, *, read_tars: bool) -> UnitRecord | None:
    """Of a unit as the corpus lists it."""
    workspace = part.maker.workspace
    record = UnitRecord.read(workspace, unit.number)
    if record is None:
        return None
    require_same(_MADE.format(workspace.location), record.settings, settings, REMEDY)
    if record.listing != part.maker.listing(unit):
        if part.state == "new":
            return None  # of a run that was killed, and whose corpus was another one
        listed = f"its corpus listed {record.listing[0]} entries, this one lists {part.maker.listed}"
        raise WorkspaceError(
            f"workspace {workspace.location!r} holds shards of another corpus ({listed}, not the same ones): {_GROW}, "
            f"{REMEDY}"
        )
    # Of the settings there is one copy, not one for each unit.
    return replace(record, settings=settings) if record.is_whole(workspace, read_tars=read_tars) else None


def _record_kept(maker: UnitMaker, number: int, *, read_tars: bool) -> UnitRecord:
    """Of a unit whose entries have changed since."""
    record = UnitRecord.read(maker.workspace, number)
    if record is None or not record.is_whole(maker.workspace, read_tars=read_tars):
        raise WorkspaceError(
            f"workspace {maker.workspace.location!r}: unit {number:06d} is damaged, and cannot be made again, as its "
            "corpus has changed since: restore it, or remake the workspace with --overwrite"
        )
    return record


def _settings_written(workspace: Workspace, names: Iterable[str]) -> dict[str, Any]:
    """Those of the settings `names` that `corpus.json` tells; none where it is missing or damaged."""
    if not workspace.exists(METADATA_NAME):
        return {}
    try:
        metadata = workspace.read_json(METADATA_NAME)
        known = {**metadata["manifest"], "classes": metadata["classes"]}
    except (WorkspaceError, KeyError, TypeError):
        return {}
    return {name: known[name] for name in names if name in known}


def corpus_there(workspace: Workspace) -> CorpusMetadata | None:
    """What the workspace holds; None where nothing is finished, or its card is damaged."""
    try:
        return CorpusMetadata.read(workspace)
    except WorkspaceError:
        return None


def _other(workspace: Workspace, what: str) -> str:
    return f"workspace {workspace.location!r} holds shards of another corpus ({what}): {REMEDY}"
