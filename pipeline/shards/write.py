"""`rho shards`: from a corpus to train, holdout and test shards, their index and the rejects."""

import posixpath
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rhostream.errors import WorkspaceError
from rhostream.loaders.decode import available_cores
from rhostream.loaders.index import METADATA_NAME, CorpusMetadata
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora import Corpus, HoldsScratch, find_tars, open_corpus
from rhostream.pipeline.jobs import exclusive_lock, make_units, progress, require_same
from rhostream.pipeline.shards.clean_list import CleanList
from rhostream.pipeline.shards.listing import Listing, all_labels, list_entries
from rhostream.pipeline.shards.noise import columns_with_noise, with_noise
from rhostream.pipeline.shards.own_files import own_names, refuse_foreign_tars, remove_own
from rhostream.pipeline.shards.sources import refuse_sources_inside
from rhostream.pipeline.shards.summary import Duplicates, tally, write_metadata
from rhostream.pipeline.shards.unit import (
    ENTRIES_BEFORE_GIVING_UP,
    Unit,
    UnitMaker,
    UnitRecord,
    example,
    refuse_mostly_bad,
    rejects_name,
    require_two_classes,
)

FOLDERS = ("rejects", "index", "shards")
REMEDY = "name another --workspace, or remake it with --overwrite"


@dataclass(frozen=True, kw_only=True)
class ShardsSummary:
    """What `rho shards` has made of a corpus; entries = sum of samples + sum of rejects.

    Attributes:
        samples: by split ("train", "holdout", "val", "test", "train-fold0"). A dry run knows the listing only: its
            samples have not been read, and "train" includes the holdout or the folds.
        rejects: by reason.
        examples: for each reason one entry, and what is wrong with it; empty for a dry run.
        classes, without_class: see `rhostream.pipeline.shards.summary.Tally`.
        units, units_made: slices of the listing, and how many of them this run has written.
    """

    workspace: str
    dry_run: bool
    entries: int
    samples: dict[str, int]
    rejects: dict[str, int]
    classes: dict[str, int]
    without_class: int
    units: int
    units_made: int
    shards: int
    duplicates: Duplicates = field(default_factory=Duplicates)
    examples: dict[str, str] = field(default_factory=dict)
    seconds: float


def write_shards(
    workspace: str | Workspace,
    manifest: Manifest,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> ShardsSummary:
    """Validate every entry of a corpus and write shards, index, rejects and, last, `corpus.json`.

    Run again after an interruption, it makes the units that are missing; the result is the same, byte for byte. The
    thumbnails that the manifest may ask for is `write_thumbnails`'s to make.

    Args:
        workers: processes; 0 works in this one, None takes one per core.
        overwrite: remove the shards, index and rejects that we have written there first.
        dry_run: list the corpus, read no image and write nothing.

    Raises:
        ConfigError: an unknown format or option, a corpus that lies where the workspace writes, or a clean list of
            another corpus.
        CorpusError: nothing to read, fewer than two classes, mostly bad entries, or nothing left to train on.
        WorkspaceError: it holds another corpus or tars of others under our names, cannot be written, or another
            process writes to it.
    """
    begin = time.monotonic()
    workspace = Workspace(workspace)
    refuse_sources_inside(workspace, _sources(manifest))
    corpus = open_corpus(manifest)
    listing = _list(corpus, manifest)
    if dry_run:
        return _listed_only(workspace, corpus, listing, time.monotonic() - begin)
    refuse_mostly_bad(_refused(listing), len(listing), manifest)
    columns = corpus.extra_columns if manifest.noise is None else columns_with_noise(corpus.extra_columns)
    maker = UnitMaker(workspace=workspace, corpus=corpus, extra_columns=columns, manifest=manifest, listed=len(listing))
    with exclusive_lock(workspace, "rho shards", workers="shards"):
        refuse_foreign_tars(workspace, _tars_written(workspace))
        if overwrite:
            workspace.remove(METADATA_NAME)  # first: it must never list what is not there
            remove_own(workspace, dict.fromkeys(FOLDERS, frozenset()))
        records = _finished(maker, listing)
        missing = [number for number, record in records.items() if record is None]
        _make(maker, listing, records, missing, available_cores() if workers is None else workers)
        made = [record for record in records.values() if record is not None]
        remove_own(workspace, _files_of(made))
        counts = tally(workspace, corpus.classes, manifest, made)
        write_metadata(workspace, corpus.classes, manifest, made, counts)
    if isinstance(corpus, HoldsScratch):
        corpus.remove_scratch()
    return ShardsSummary(
        workspace=workspace.location,
        dry_run=False,
        entries=len(listing),
        samples=counts.samples,
        rejects=counts.rejects,
        classes=counts.classes,
        without_class=counts.without_class,
        shards=counts.shards,
        duplicates=counts.duplicates,
        examples=counts.examples,
        units=listing.units,
        units_made=len(missing),
        seconds=time.monotonic() - begin,
    )


def _sources(manifest: Manifest) -> list[str]:
    """What the corpus is read from: its root, and of a folder of tars each tar."""
    if manifest.format != "webdataset":
        return [manifest.root] if manifest.root else []
    base, tars = find_tars(manifest)
    return [str(base / tar) for tar in tars]


def _list(corpus: Corpus, manifest: Manifest) -> Listing:
    require_two_classes(corpus.classes, manifest)
    entries = corpus.entries()
    if manifest.noise is not None:
        entries = iter(with_noise(entries, manifest.noise, corpus.classes))
    if manifest.clean_list:
        entries = CleanList.read(manifest.clean_list).applied(entries, corpus.classes)
    return list_entries(entries, classes=len(corpus.classes), seed=manifest.seed, unit_size=manifest.shard_size)


def _refused(listing: Listing) -> dict[str, tuple[int, str]]:
    examples: dict[str, str] = {}
    for entry in listing.entries:
        if entry.reason:
            examples.setdefault(entry.reason, example(entry.source, entry.detail))
    return {reason: (count, examples[reason]) for reason, count in listing.refused().items()}


def _listed_only(workspace: Workspace, corpus: Corpus, listing: Listing, seconds: float) -> ShardsSummary:
    kept = [entry for entry in listing.entries if entry.label is not None]
    splits = Counter(entry.split if entry.split in ("val", "test") else "train" for entry in kept)
    labels = Counter(label for entry in kept for label in all_labels(entry))
    return ShardsSummary(
        workspace=workspace.location,
        dry_run=True,
        entries=len(listing),
        samples=dict(sorted(splits.items())),
        rejects=dict(sorted(listing.refused().items())),
        classes={name: labels[label] for label, name in enumerate(corpus.classes)},
        without_class=sum(not all_labels(entry) for entry in kept),
        units=listing.units,
        units_made=0,
        shards=0,
        seconds=seconds,
    )


def _finished(maker: UnitMaker, listing: Listing) -> dict[int, UnitRecord | None]:
    """The record of every unit, None where it is still to make.

    Raises:
        WorkspaceError: the workspace holds units of other settings or of another listing.
    """
    found: dict[int, UnitRecord | None] = {}
    settings = maker.settings()
    what = f"workspace {maker.workspace.location!r} holds shards made"
    for number in range(listing.units):
        record = found[number] = UnitRecord.read(maker.workspace, number)
        if record is not None:
            require_same(what, record.settings, settings, REMEDY)
            if record.listing != maker.listing(_unit(listing, number)):
                raise WorkspaceError(
                    _other(
                        maker.workspace,
                        f"its corpus listed {record.listing[0]} entries, this one "
                        f"lists {len(listing)}, not the same ones",
                    )
                )
    beyond = [name for name in own_names(maker.workspace, "rejects") if name > f"{listing.units - 1:06d}.parquet"]
    if beyond:
        raise WorkspaceError(_other(maker.workspace, f"it has {len(beyond)} more units than this corpus"))
    require_same(what, settings | _settings_written(maker.workspace, settings), settings, REMEDY)
    with ThreadPoolExecutor(available_cores()) as pool:  # which read and hash every tar
        return dict(zip(found, pool.map(partial(_if_whole, maker.workspace), found.values()), strict=True))


def _if_whole(workspace: Workspace, record: UnitRecord | None) -> UnitRecord | None:
    return record if record is not None and record.is_whole(workspace) else None


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


def _tars_written(workspace: Workspace) -> set[str]:
    """Names of the tars that we have written, as far as `corpus.json` tells."""
    try:
        return {f"{shard.name}.tar" for shard in CorpusMetadata.read(workspace).shards if not shard.source}
    except WorkspaceError:
        return set()


def _other(workspace: Workspace, what: str) -> str:
    return f"workspace {workspace.location!r} holds shards of another corpus ({what}): {REMEDY}"


def _make(
    maker: UnitMaker, listing: Listing, records: dict[int, UnitRecord | None], missing: Sequence[int], workers: int
) -> None:
    """Fill in the missing records, and stop when too much of what has been read so far is refused."""
    entries, rejects = 0, dict[str, tuple[int, str]]()

    def count(record: UnitRecord) -> None:
        nonlocal entries
        entries += record.entries
        for reason, (number, shown) in record.rejects.items():
            rejects[reason] = (rejects.get(reason, (0, ""))[0] + number, shown)

    for record in records.values():
        if record is not None:
            count(record)
    with progress("shards", len(listing), "entries", initial=entries) as bar:
        units = [_unit(listing, number) for number in missing]
        for number, record in make_units(maker, units, workers=workers, advance=bar.advance):
            records[number] = record
            count(record)
            if entries >= ENTRIES_BEFORE_GIVING_UP:
                refuse_mostly_bad(rejects, entries, maker.manifest)
    refuse_mostly_bad(rejects, entries, maker.manifest)


def _unit(listing: Listing, number: int) -> Unit:
    part = listing.slice(number)
    return Unit(number=number, keys=listing.keys[part], entries=listing.entries[part])


def _files_of(made: Sequence[UnitRecord]) -> dict[str, set[str]]:
    """Names by folder."""
    names = {shard.name for record in made for shard, _, _ in record.shards}
    return {
        "shards": {f"{name}.tar" for name in names},
        "index": {f"{name}.parquet" for name in names},
        "rejects": {posixpath.basename(rejects_name(number)) for number in range(len(made))},
    }
