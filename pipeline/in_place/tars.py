"""`rho index`: a workspace over WebDataset tars that stay where they are."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from rhostream.errors import ConfigError, CorpusError, WorkspaceError
from rhostream.loaders.index import METADATA_NAME, CorpusMetadata, Shard
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import EngineName, Manifest, WebDatasetOptions, settings
from rhostream.pipeline.corpora import SampleReader, checked_splits, list_tars
from rhostream.pipeline.in_place.indexer import (
    TarIndexer,
    captions_of,
    looked_through,
)
from rhostream.pipeline.in_place.scanner import SCANS, ScanRecord, TarScanner, TarUnit
from rhostream.pipeline.jobs import (
    Engine,
    chosen_engine,
    exclusive_lock,
    make_units,
    one_at_a_time,
    progress,
    read_ahead,
    require_same,
)
from rhostream.pipeline.shards import (
    ENTRIES_BEFORE_GIVING_UP,
    REMEDY,
    Refusals,
    ShardsSummary,
    UnitRecord,
    add_refusals,
    own_names,
    refuse_mostly_bad,
    refuse_sources_inside,
    refuse_straddling,
    rejects_name,
    remove_own,
    require_two_classes,
    scratch_space,
    tally,
    write_metadata,
)

FOLDERS: Final = ("rejects", "index", SCANS)
_READ_AHEAD: Final = 8  # scans being read
_COMPARED: Final = ("task", "seed", "holdout", "folds", "max_pixels", "options")


def index_tars(
    workspace: str | Workspace,
    tars: Sequence[str],
    manifest: Manifest,
    *,
    workers: int | None = None,
    engine: EngineName = "local",
    overwrite: bool = False,
) -> ShardsSummary:
    """Read every tar once, validate its samples, and write index, rejects and, last, `corpus.json`.

    Of each tar a workspace gets one shard per split and fold, whose rows point into the tar. Run again after an
    interruption, it reads the tars that are missing; the result is the same, byte for byte. Run again with further
    tars, it adds those.

    Args:
        tars: tars, folders, globs and brace patterns; local paths or fsspec URLs.
        manifest: of format "webdataset"; `tars` take the place of its root.
        workers: processes or actors; 0 works in this one, None takes one per core.
        engine: who does the work, see `rhostream.pipeline.jobs.Engine`. A static job reads its share of the tars; the
            last one to end makes the index of all, and `corpus.json`.
        overwrite: remove index, rejects and scans that we have written there first; no tar.

    Raises:
        ConfigError: a manifest that asks for what only `rho shards` can do, or a tar that lies where the workspace
            writes.
        CorpusError: no tar, a damaged one, keys that clash, fewer than two classes, or mostly bad entries.
        WorkspaceError: it holds another corpus, cannot be written, or another process writes to it.
    """
    begin = time.monotonic()
    workspace = Workspace(workspace)
    chosen = chosen_engine(engine, workers)
    if chosen.is_shared and overwrite:
        raise ConfigError(
            "--overwrite with --engine static: each job would remove what others have made; run one job without "
            "--engine first, or name another --workspace"
        )
    options = _options(manifest)
    manifest = replace(manifest, root=" ".join(tars), options=asdict(options))
    scanner = TarScanner(workspace=workspace, manifest=manifest, options=options)
    units = [TarUnit(number=number, tar=tar) for number, tar in enumerate(list_tars(tars))]
    refuse_sources_inside(workspace, [unit.tar.url for unit in units])
    locked = exclusive_lock(workspace, "rho index", workers=SCANS, engine=chosen)
    # Static jobs hold the lock together: each has its scratch elsewhere.
    with locked, scratch_space(None if chosen.is_shared else workspace) as scratch:
        _refuse_written_shards(workspace)
        if overwrite:
            workspace.remove(METADATA_NAME)  # first: it must never list what is not there
            remove_own(workspace, dict.fromkeys(FOLDERS, frozenset()))
        known = _known(workspace, units)
        asked = json.loads(json.dumps(manifest.to_dict()))
        _require_same(workspace, known, {name: asked[name] for name in _COMPARED})
        made, missing = _scan(scanner, units, chosen)
        if missing:
            return _share(workspace, scanner, units, made, missing, time.monotonic() - begin)
        classes = looked_through(scanner, units, scratch)
        require_two_classes(classes, manifest)
        _require_same(workspace, known, {"classes": list(classes)})
        captions = captions_of(scanner, units) if manifest.task == "pairs" else None
        indexer = TarIndexer(workspace=workspace, scanner=scanner, classes=classes, captions=captions)
        with one_at_a_time(workspace, "rejects", chosen):
            records, common = _index(indexer, units), 0
            if manifest.task == "pairs":
                extra = SampleReader(options, manifest.task).extra_columns
                settled = refuse_straddling(workspace, records, manifest, scratch, extra_columns=extra)
                records, common = settled.records, settled.common_captions
            shards = {shard.name for record in records for shard, _, _ in record.shards}
            remove_own(
                workspace,
                {
                    "rejects": {rejects_name(unit.number).rpartition("/")[2] for unit in units},
                    "index": {f"{name}.parquet" for name in shards},
                    SCANS: {scanner.name(unit.tar).rpartition("/")[2] for unit in units},
                },
            )
            fields = scanner.fields
            counts = tally(workspace, classes, manifest, records, scratch, fields=fields, common_captions=common)
            write_metadata(workspace, classes, manifest, records, counts, fields=fields)
    return ShardsSummary(
        workspace=workspace.location,
        dry_run=False,
        entries=sum(counts.samples.values()) + sum(counts.rejects.values()),
        **vars(counts),
        units=len(units),
        units_made=made,
        seconds=time.monotonic() - begin,
    )


def _options(manifest: Manifest) -> WebDatasetOptions:
    if manifest.format != "webdataset":
        raise ConfigError(
            f"manifest {manifest.name!r} has format {manifest.format!r}: only tars of format "
            "'webdataset' are indexed where they lie; write shards of the others"
        )
    changes = {"max_side": manifest.max_side, "[noise]": manifest.noise, "clean_list": manifest.clean_list}
    if sets := [name for name, value in changes.items() if value]:
        raise ConfigError(
            f"manifest {manifest.name!r} sets {sets[0]}: tars that are indexed where they lie stay as they are; "
            "write shards of them instead"
        )
    options = settings(WebDatasetOptions, (f"manifest {manifest.name!r}, [options] of webdataset", manifest.options))
    checked_splits(options.splits, "[options] splits")
    if options.text not in ("", "txt") and manifest.task != "pairs":
        raise ConfigError(
            f"[options] text = {options.text!r}: a text inside a .json is no member that an index could point to; "
            "write shards of these tars, or name txt"
        )
    SampleReader(options, manifest.task)  # refuses options that cannot be
    return options


def _known(workspace: Workspace, units: Sequence[TarUnit]) -> Mapping[str, Any]:
    """Settings and classes of the corpus that the workspace holds; empty where there is none.

    Raises:
        WorkspaceError: it holds tars that are not among the units.
    """
    corpus = _corpus(workspace)
    if corpus is None:
        return {}
    holds = f"workspace {workspace.location!r} holds"
    if not all(shard.source for shard in corpus.shards):
        raise WorkspaceError(f"{holds} the index of shards of its own: {REMEDY}")
    gone = {shard.source for shard in corpus.shards} - {unit.tar.url for unit in units}
    if gone:
        raise WorkspaceError(
            f"{holds} an index of {len(gone)} tars that are not named now, for instance {min(gone)}: name all tars of "
            f"the corpus, or {REMEDY}"
        )
    usual = json.loads(json.dumps(asdict(WebDatasetOptions())))  # what a former release did not ask for
    options = {**usual, **corpus.manifest.get("options", {})}
    return {**corpus.manifest, "task": corpus.task, "options": options, "classes": list(corpus.classes)}


def _refuse_written_shards(workspace: Workspace) -> None:
    """Raises WorkspaceError where `rho shards` has written shards, which are not ours to remove."""
    tars = own_names(workspace, "shards")
    if not tars:
        return
    corpus = _corpus(workspace)
    known: Iterable[Shard] = () if corpus is None else corpus.shards
    if corpus is None:  # of a run that was killed, the records of its units tell
        records = (UnitRecord.read(workspace, int(name.split(".")[0])) for name in own_names(workspace, "rejects"))
        known = (shard for record in records if record is not None for shard, _, _ in record.shards)
    if any(not shard.source for shard in known):
        raise WorkspaceError(
            f"workspace {workspace.location!r} holds shards of its own ({len(tars)} tars), which indexing "
            f"never removes: name another --workspace, or delete {workspace.path('shards')} first and give "
            "--overwrite"
        )


def _corpus(workspace: Workspace) -> CorpusMetadata | None:
    """None where there is none, or a damaged one, which is written anew."""
    if not workspace.exists(METADATA_NAME):
        return None
    try:
        return CorpusMetadata.read(workspace)
    except WorkspaceError:
        return None


def _require_same(workspace: Workspace, known: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    found = {name: known[name] for name in asked if name in known}
    require_same(f"workspace {workspace.location!r} holds an index made", {**asked, **found}, asked, REMEDY)


def _share(
    workspace: Workspace, scanner: TarScanner, units: Sequence[TarUnit], made: int, missing: int, seconds: float
) -> ShardsSummary:
    """Of a static job that is not the last one: what is known of the tars read so far."""
    records = [record for record in map(scanner.record, (unit.tar for unit in units)) if record is not None]
    rejects = Refusals()
    for record in records:
        add_refusals(rejects, record.rejects)
    entries, refused = sum(record.entries for record in records), sum(count for count, _ in rejects.values())
    return ShardsSummary(
        workspace=workspace.location,
        dry_run=False,
        complete=False,
        entries=entries,
        samples={"all": entries - refused},
        rejects={reason: count for reason, (count, _) in sorted(rejects.items())},
        classes={},
        without_class=0,
        shards=0,
        examples={reason: shown for reason, (_, shown) in rejects.items()},
        units=len(units),
        units_made=made,
        seconds=seconds,
    )


def _scan(scanner: TarScanner, units: Sequence[TarUnit], engine: Engine) -> tuple[int, int]:
    """Read the tars whose scans are missing, and stop when too much of what has been read is refused.

    Returns:
        How many were read, and how many other jobs have yet to read.
    """
    entries, rejects = 0, Refusals()

    def count(record: ScanRecord) -> None:
        nonlocal entries
        entries += record.entries
        add_refusals(rejects, record.rejects)

    missing = []
    mine = [unit for unit in units if engine.makes(unit.number)]
    for unit, record in zip(mine, read_ahead(scanner.record, (unit.tar for unit in mine), _READ_AHEAD), strict=True):
        if record is None:
            missing.append(unit)
        else:
            count(record)
    total = sum(unit.megabytes for unit in mine)
    done = total - sum(unit.megabytes for unit in missing)
    with progress("index", total, "MB", initial=done) as bar:
        for _, record in make_units(scanner, missing, engine=engine, advance=bar.advance):
            count(record)
            if entries >= ENTRIES_BEFORE_GIVING_UP:
                refuse_mostly_bad(rejects, entries, scanner.manifest)
    others = 0
    for unit in units:
        if not engine.makes(unit.number):
            record = scanner.record(unit.tar)
            if record is None:
                others += 1
            else:
                count(record)
    if not entries and not others:
        raise CorpusError(f"the {len(units)} tars hold no sample: check that they are WebDataset tars")
    refuse_mostly_bad(rejects, entries, scanner.manifest)
    return len(missing), others


def _index(indexer: TarIndexer, units: Sequence[TarUnit]) -> list[UnitRecord]:
    found = [indexer.record(unit) for unit in units]
    if None in found:
        indexer.workspace.remove(METADATA_NAME)  # it must never list what is not there
    records = [record or indexer(unit) for record, unit in zip(found, units, strict=True)]
    rejects = Refusals()
    for record in records:
        add_refusals(rejects, record.rejects)
    refuse_mostly_bad(rejects, sum(record.entries for record in records), indexer.manifest)
    return records
