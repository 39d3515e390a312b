"""`rho shards`: from a corpus to train, holdout and test shards, their index and the rejects."""

import os
import posixpath
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow.compute as pc

from rhostream.errors import ConfigError
from rhostream.loaders.index import METADATA_NAME
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import EngineName, Manifest, resolve_manifest
from rhostream.pipeline.corpora import (
    SAMPLES_FORMAT,
    Corpus,
    HoldsScratch,
    SampleCorpus,
    Samples,
    fields_of,
    find_tars,
    open_corpus,
)
from rhostream.pipeline.jobs import (
    Engine,
    chosen_engine,
    exclusive_lock,
    make_units,
    one_at_a_time,
    progress,
)
from rhostream.pipeline.shards.captions import CaptionCounts
from rhostream.pipeline.shards.listing import Listing, Unit
from rhostream.pipeline.shards.own_files import refuse_foreign_tars, remove_own
from rhostream.pipeline.shards.plan import ShardsPlan, corpus_there, finished_units, list_corpus, plan_shards
from rhostream.pipeline.shards.refusals import Refusals, add_refusals, refuse_mostly_bad
from rhostream.pipeline.shards.scratch import Scratch, scratch_space
from rhostream.pipeline.shards.sources import refuse_sources_inside
from rhostream.pipeline.shards.straddling import Settled, refuse_straddling
from rhostream.pipeline.shards.summary import Tally, tally, write_metadata
from rhostream.pipeline.shards.unit import (
    ENTRIES_BEFORE_GIVING_UP,
    UnitRecord,
    rejects_name,
    require_two_classes,
)

FOLDERS = ("rejects", "index", "shards")


@dataclass(frozen=True, kw_only=True)
class ShardsSummary(Tally):
    """What `rho shards` has made of a corpus; entries = sum of samples + sum of rejects.

    A dry run knows the listing only: its samples have not been read, "train" includes the holdout or the folds, and
    there are no examples.

    Attributes:
        units, units_made: slices of the listing, and how many of them this run has written.
        complete: False of a static job that has ended before others: what it tells of samples, rejects and shards is
            what was made so far.
        added: entries that this run has appended.
        removed, changed: entries of earlier shards that the corpus no longer lists, or lists otherwise.
    """

    workspace: str
    dry_run: bool
    entries: int
    units: int
    units_made: int
    complete: bool = True
    added: int = 0
    removed: int = 0
    changed: int = 0
    seconds: float


def write_shards(
    workspace: str | os.PathLike[str] | Workspace,
    manifest: Manifest | None = None,
    *,
    samples: Samples | None = None,
    workers: int | None = None,
    engine: EngineName = "local",
    append: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    **given: Any,
) -> ShardsSummary:
    """Validate every entry of a corpus and write shards, index, rejects and, last, `corpus.json`.

    Run again after an interruption, with the same manifest or the same samples in any order, it makes the units that
    are missing; the result is the same, byte for byte. The thumbnails that the manifest may ask for is
    `write_thumbnails`'s to make.

    Args:
        manifest: of a corpus in files; or else
        samples: an iterable of the samples, or a function that returns one. Each is (key, image, label), (key, image,
            label, split), or a mapping of these names and of columns that the index keeps besides. A key names a sample
            for good: of several with one key one is kept, the others are refused as `duplicate_key`. An image is a
            file's bytes, stored as they are, its path, or a PIL image, stored as PNG; a label a class name or number,
            or a list of them with `task="multi_label"`. A split of train, holdout, val or test wins over the hash of
            the image; None leaves the sample to it. With `task="pairs"` the caption, `text`, stands in the place of the
            label, and the split follows what several pairs share, see docs/pairs.md. Samples are gone through once and
            need not fit into memory: what is no file yet is kept in the workspace until the shards are written. A
            generator gives its samples once: give a function, or make it anew, where the call is to be repeated.
        workers: processes or actors; 0 works in this one, None takes one per core. Processes import the script that
            calls, so call below `if __name__ == "__main__":`.
        engine: who does the work, see `rhostream.pipeline.jobs.Engine`. A static job makes its share of the units; the
            last one to end counts, and writes `corpus.json`.
        append: where the workspace is finished and its corpus has grown since, make units of what is new; the others
            stay as they are, whatever has become of their entries.
        overwrite: remove the shards, index and rejects that we have written there first.
        dry_run: list the corpus, read no image and write nothing.
        given: with `samples`, settings of a manifest: name, classes, task, holdout, folds, seed, clean_list and so on.

    Raises:
        ConfigError: something that is no sample, an unknown format or option, a corpus that lies where the workspace
            writes, or a clean list of another corpus.
        CorpusError: nothing to read, fewer than two classes, mostly bad entries, or nothing left to train on.
        WorkspaceError: it holds another corpus or tars of others under our names, cannot be written, or another
            process writes to it.
    """
    begin = time.monotonic()
    workspace = Workspace(workspace)
    chosen = chosen_engine(engine, workers)
    if chosen.is_shared and overwrite:
        raise ConfigError(
            "--overwrite with --engine static: each job would remove what others have made; run one job without "
            "--engine first, or name another --workspace"
        )
    opened: Callable[[Scratch], Corpus]
    if samples is not None:
        manifest = _manifest_of_samples(manifest, given)
        opened = partial(_collected, samples, manifest, not dry_run)
        if engine == "ray" and not workspace.is_local:
            raise ConfigError(
                "samples of Python wait in a folder of this machine, where actors of a Ray cluster cannot read them: "
                "name a --workspace on a file system that all machines share, or take engine local"
            )
    elif manifest is None or given:
        raise ConfigError(
            f"write_shards takes samples, or a manifest that has all settings ({', '.join(given) or 'neither is given'}"
            "): give one of the two"
        )
    else:
        opened = partial(_at_hand, _opened(workspace, manifest))  # before anything is locked or written
    if dry_run:
        with scratch_space(None) as scratch:
            corpus = opened(scratch)
            listing = list_corpus(corpus, manifest, scratch)
            return _listed_only(workspace, corpus, listing, time.monotonic() - begin)
    locked = exclusive_lock(workspace, "rho shards", workers="shards", engine=chosen)
    # Static jobs hold the lock together: each has its scratch elsewhere.
    with locked, scratch_space(None if chosen.is_shared else workspace) as scratch:
        corpus = opened(scratch)
        plan = plan_shards(workspace, corpus, manifest, scratch, append=append, overwrite=overwrite)
        refuse_foreign_tars(workspace, _tars_written(workspace))
        if overwrite:
            workspace.remove(METADATA_NAME)  # first: it must never list what is not there
            remove_own(workspace, dict.fromkeys(FOLDERS, frozenset()))
        with one_at_a_time(workspace, "rejects", chosen):
            records = finished_units(plan, chosen.makes)
        missing = [number for number, record in records.items() if record is None]
        _make(plan, records, missing, chosen)
        with one_at_a_time(workspace, "rejects", chosen):
            if chosen.is_shared:  # others may have made some, and one of them may have settled all
                records = finished_units(plan, lambda _: True, read_tars=False)
            made = [record for _, record in sorted(records.items()) if record is not None]
            if len(made) < plan.units:
                return _share(workspace, plan, made, len(missing), time.monotonic() - begin)
            common = 0
            if manifest.task == "pairs":
                settled = _settled(plan, made, scratch)
                made, common = settled.records, settled.common_captions
            remove_own(workspace, _files_of(made))
            fields = fields_of(corpus)
            counts = tally(workspace, corpus.classes, manifest, made, scratch, fields=fields, common_captions=common)
            write_metadata(workspace, corpus.classes, manifest, made, counts, plan.appended, fields=fields)
    if isinstance(corpus, HoldsScratch):
        corpus.remove_scratch()
    return ShardsSummary(
        workspace=workspace.location,
        dry_run=False,
        entries=sum(counts.samples.values()) + sum(counts.rejects.values()),
        **vars(counts),
        units=plan.units,
        units_made=len(missing),
        added=plan.added,
        removed=plan.removed,
        changed=plan.changed,
        seconds=time.monotonic() - begin,
    )


def _manifest_of_samples(manifest: Manifest | None, given: Mapping[str, Any]) -> Manifest:
    if manifest is not None:
        raise ConfigError("write_shards takes a manifest or samples: settings of these are its own arguments")
    return resolve_manifest(("write_shards", {"name": SAMPLES_FORMAT, **given, "format": SAMPLES_FORMAT}))


def _opened(workspace: Workspace, manifest: Manifest) -> Corpus:
    refuse_sources_inside(workspace, _sources(manifest))
    corpus = open_corpus(manifest)
    require_two_classes(corpus.classes, manifest)
    return corpus


def _at_hand(corpus: Corpus, _: Scratch) -> Corpus:
    return corpus


def _collected(samples: Samples, manifest: Manifest, keep: bool, scratch: Scratch) -> Corpus:
    corpus = SampleCorpus(samples, manifest, scratch.folder(), keep=keep)
    require_two_classes(corpus.classes, manifest)
    return corpus


def _sources(manifest: Manifest) -> list[str]:
    """What the corpus is read from: its root, and of a folder of tars each tar."""
    if manifest.format != "webdataset":
        return [manifest.root] if manifest.root else []
    base, tars = find_tars(manifest)
    return [str(base / tar) for tar in tars]


def _listed_only(workspace: Workspace, corpus: Corpus, listing: Listing, seconds: float) -> ShardsSummary:
    splits, labels, without_class, empty_captions = Counter[str](), Counter[int](), 0, 0
    for table in listing.tables(["split", "label", "labels", "text", "reason"]):
        for row in table.filter(pc.equal(table["reason"], "")).to_pylist():
            splits[row["split"] if row["split"] in ("holdout", "val", "test") else "train"] += 1
            if row["text"] is not None:
                empty_captions += not row["text"].strip()
                continue
            has = [row["label"]] if row["labels"] is None else row["labels"]
            labels.update(has)
            without_class += not has
    return ShardsSummary(
        workspace=workspace.location,
        dry_run=True,
        entries=listing.entries,
        samples=dict(sorted(splits.items())),
        rejects={reason: count for reason, (count, _) in sorted(listing.refused.items())},
        classes={name: labels[label] for label, name in enumerate(corpus.classes)},
        without_class=without_class,
        empty_captions=empty_captions,
        units=listing.units,
        units_made=0,
        shards=0,
        seconds=seconds,
    )


def _share(
    workspace: Workspace, plan: ShardsPlan, made: Sequence[UnitRecord], units_made: int, seconds: float
) -> ShardsSummary:
    """Of a static job that is not the last one."""
    samples, rejects = Counter[str](), Refusals()
    for record in made:
        add_refusals(rejects, record.rejects)
        for shard, _, _ in record.shards:
            samples[shard.split_and_fold] += shard.rows
    return ShardsSummary(
        workspace=workspace.location,
        dry_run=False,
        complete=False,
        entries=plan.parts[-1].maker.listed,
        samples=dict(sorted(samples.items())),
        rejects={reason: count for reason, (count, _) in sorted(rejects.items())},
        classes={},
        without_class=0,
        shards=sum(len(record.shards) for record in made),
        examples={reason: shown for reason, (_, shown) in rejects.items()},
        units=plan.units,
        units_made=units_made,
        added=plan.added,
        removed=plan.removed,
        changed=plan.changed,
        seconds=seconds,
    )


def _tars_written(workspace: Workspace) -> set[str]:
    """Names of the tars that we have written, as far as `corpus.json` tells."""
    corpus = corpus_there(workspace)
    return set() if corpus is None else {f"{shard.name}.tar" for shard in corpus.shards if not shard.source}


def _make(plan: ShardsPlan, records: dict[int, UnitRecord | None], missing: Sequence[int], engine: Engine) -> None:
    """Fill in the missing records, and stop when too much of what has been read so far is refused."""
    entries, rejects = 0, Refusals()
    manifest = plan.maker.manifest

    def count(record: UnitRecord) -> None:
        nonlocal entries
        entries += record.entries
        add_refusals(rejects, record.rejects)

    for record in records.values():
        if record is not None:
            count(record)
    wanted = set(missing)
    sizes = (
        min(manifest.shard_size, part.listing.entries - place * manifest.shard_size)
        for part in plan.parts
        for place, number in enumerate(part.units)
        if number in wanted
    )
    captions = CaptionCounts() if manifest.task == "pairs" and wanted else None
    with progress("shards", entries + sum(sizes), "entries", initial=entries) as bar:
        for part in plan.parts:
            units: Iterator[Unit] = (part.listing.unit(number) for number in part.units if number in wanted)
            if captions is not None:
                captions.add_listing(part.listing)  # of this part and those before it
                units = map(captions.bound, units)
            for number, record in make_units(part.maker, units, engine=engine, advance=bar.advance):
                records[number] = record
                count(record)
                if entries >= ENTRIES_BEFORE_GIVING_UP:
                    refuse_mostly_bad(rejects, entries, manifest)
    refuse_mostly_bad(rejects, entries, manifest)


def _settled(plan: ShardsPlan, made: Sequence[UnitRecord], scratch: Scratch) -> Settled:
    """A corpus of pairs of which none straddles the split."""
    starts = [part.units.start for part in plan.parts]

    maker = plan.maker
    return refuse_straddling(
        maker.workspace,
        made,
        maker.manifest,
        scratch,
        extra_columns=maker.extra_columns,
        part_of=lambda unit: bisect_right(starts, unit) - 1,
    )


def _files_of(made: Sequence[UnitRecord]) -> dict[str, set[str]]:
    """Names by folder."""
    names = {shard.name for record in made for shard, _, _ in record.shards}
    return {
        "shards": {f"{name}.tar" for name in names},
        "index": {f"{name}.parquet" for name in names},
        "rejects": {posixpath.basename(rejects_name(number)) for number in range(len(made))},
    }
