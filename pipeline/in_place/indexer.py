"""From the scans of tars to the index of a workspace: labels, keys, split and fold of every sample."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rhostream.errors import CorpusError
from rhostream.loaders.decode import normalized_hash
from rhostream.loaders.index import key_hashes, webdataset_key
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import Manifest, WebDatasetOptions
from rhostream.pipeline.corpora import (
    Label,
    SampleReader,
    TarFile,
    checked_splits,
    derive_classes,
    label_parser,
    label_texts,
)
from rhostream.pipeline.in_place.scanner import EXTRA, TarScanner, TarUnit
from rhostream.pipeline.shards import (
    HASH,
    CaptionCounts,
    IndexRows,
    PairFacts,
    SampleFacts,
    Scratch,
    UnitRecord,
    bring_together,
    clean_text,
    names_of,
    pair_identity,
    settings_of_fields,
    settings_of_task,
    shard_name,
    split_of,
    write_unit,
)

FORMAT = 2  # of the index; another one makes it anew from the scans


def looked_through(scanner: TarScanner, units: Sequence[TarUnit], scratch: Scratch) -> tuple[str, ...]:
    """The manifest's classes, or all labels that occur; each scan is read once for this, and for the keys.

    Raises:
        CorpusError: no sample has a label, or samples of two tars have one key.
    """
    task, is_given = scanner.manifest.task, bool(scanner.manifest.classes) or scanner.manifest.task == "pairs"
    texts: set[str | None] = set()

    def keys_of(unit: TarUnit) -> pa.Table:
        table = scanner.rows(unit.tar, ["key", "reason", *([] if is_given else ["label"])])
        if not is_given:
            for raw in pc.unique(table["label"]).to_pylist():
                texts.update(label_texts(raw, task, scanner.options.separator))
        names = table.filter(pc.equal(table["reason"], "")).column("key").to_pylist()
        keys = [sample_key(name, unit.tar, scanner.options) for name in names]
        tars = pa.array(np.full(len(names), unit.number, np.int32))
        return pa.table({HASH: key_hashes(keys, 0), "key": pa.array(keys, pa.string()), "tar": tars})

    _require_unique_keys(map(keys_of, units), units, scanner.options, scratch)
    if is_given:
        return scanner.manifest.classes
    return derive_classes(texts, f"{scanner.options.label} in the {len(units)} tars")


def _require_unique_keys(
    keys: Iterable[pa.Table], units: Sequence[TarUnit], options: WebDatasetOptions, scratch: Scratch
) -> None:
    """Raises CorpusError where samples of two tars have one key."""
    clashes, first = 0, None
    for rows in bring_together(keys, scratch):
        found = rows.group_by("key").aggregate([("tar", "count_distinct"), ("tar", "min"), ("tar", "max")])
        several = found.filter(pc.greater(found["tar_count_distinct"], 1)).sort_by("key")
        clashes += several.num_rows
        candidates = several.slice(0, 1).to_pylist() + ([first] if first else [])
        first = min(candidates, key=lambda clash: clash["key"], default=None)
    if first:
        named = f"{units[first['tar_min']].tar.url} and {units[first['tar_max']].tar.url}"
        remedy = (
            "name the tar in every key with --keys tar"
            if options.keys == "sample"
            else "rename one of the tars, the keys are derived from their file names"
        )
        raise CorpusError(
            f"{clashes} keys stand in more than one tar, for instance {first['key']!r} in {named}: {remedy}"
        )


def captions_of(scanner: TarScanner, units: Sequence[TarUnit]) -> CaptionCounts:
    """Of pairs, how many share each caption."""
    counts = CaptionCounts()
    for unit in units:
        counts.add(_hashes_of(scanner, unit))
    return counts


def _hashes_of(scanner: TarScanner, unit: TarUnit) -> list[str]:
    """Of the captions of a tar that have a word in them."""
    hashes = scanner.rows(unit.tar, ["text_hash"])["text_hash"].drop_null()
    return [each for each in hashes.to_pylist() if each != normalized_hash("")]


def sample_key(name: str, tar: TarFile, options: WebDatasetOptions) -> str:
    """The key of the sample that webdataset calls `name`."""
    return webdataset_key(name, tar.url if options.keys == "tar" else "")


@dataclass(frozen=True, kw_only=True)
class TarIndexer:
    """Turns the scan of a tar into the indexes of its shards, one for each split and fold, and its rejects."""

    workspace: Workspace
    scanner: TarScanner
    classes: tuple[str, ...]
    captions: CaptionCounts | None = None  # of pairs, of all tars

    @property
    def manifest(self) -> Manifest:
        return self.scanner.manifest

    def settings(self, unit: TarUnit) -> dict[str, Any]:
        """All that decides the index of a unit, as JSON values."""
        options = self.scanner.options
        return {
            "index_format": FORMAT,
            "tar": unit.tar.url,
            "scan": self.scanner.name(unit.tar),
            "seed": self.manifest.seed,
            "holdout": self.manifest.holdout,
            "folds": self.manifest.folds,
            "splits": options.splits,
            "keys": options.keys,
            "classes": list(self.classes),
            **settings_of_task(self.manifest),
            **({"separator": options.separator} if options.separator else {}),
            **settings_of_fields(self.scanner.fields, self.manifest),
            **(
                {"binding": hashlib.sha256("".join(sorted(self._binding(unit))).encode()).hexdigest()}
                if self.captions
                else {}
            ),
        }

    def _binding(self, unit: TarUnit) -> frozenset[str]:
        """Captions that the split follows: they may change when there are further tars."""
        return self.captions.binding(_hashes_of(self.scanner, unit)) if self.captions else frozenset()

    def record(self, unit: TarUnit) -> UnitRecord | None:
        """Of a finished unit; None where it is to be made."""
        record = UnitRecord.read(self.workspace, unit.number)
        finished = record is not None and record.settings == self.settings(unit) and record.is_whole(self.workspace)
        return record if finished else None

    def __call__(self, unit: TarUnit) -> UnitRecord:
        """Write the indexes and, last, the rejects of a unit."""
        tar, options = unit.tar, self.scanner.options
        task = self.manifest.task
        extra = SampleReader(options, task).extra_columns
        parser = label_parser(self.classes, task, options.separator)
        official = official_split(tar, options)
        rejects: list[dict[str, str]] = []
        shards: dict[str, IndexRows] = {}
        seen: set[str] = set()
        table = self.scanner.rows(tar)
        binding = self._binding(unit)
        for row in table.to_pylist():
            source = clean_text(f"{tar.url}/{row['name']}" if row["name"] else tar.url)
            key = sample_key(row["key"] or source, tar, options)
            label: Label | None = None
            reason, detail, caption = row["reason"], row["detail"], row.get("text")
            if task == "pairs" and not reason:
                label = ()
            elif row["label"] is not None:
                label, unknown, why = parser.parse(row["label"])
                reason, detail = (unknown, why) if unknown else (reason, detail)
            if not reason and key in seen:
                reason, detail = "duplicate_key", f"key {key} stands in this tar before"
            if reason or label is None:
                rejects.append({"source": source, "key": key, "reason": reason, "detail": clean_text(detail)})
                continue
            seen.add(key)
            content_hash = row["sha256"].hex()[:32]
            if caption is not None:
                identity = pair_identity(content_hash, row["text_hash"], binding)
            else:
                identity = bytes.fromhex(row["normalized_hash"]) if "normalized_hash" in row else row["sha256"]
            split, fold = split_of(official, identity, self.manifest)
            name = shard_name(split, fold, unit.number)
            if name not in shards:
                shards[name] = IndexRows(
                    name=name,
                    split=split,
                    fold=fold,
                    task=task,
                    fields=self.scanner.fields,
                    extra=extra,
                    source=tar.url,
                )
            facts = SampleFacts(
                key=key,
                source=source,
                label=label,
                class_name=names_of(label, self.classes),
                ext=row["ext"],
                measures={column: row[column] for column in self.scanner.measures},
                extra={column: row[EXTRA + column] for column in extra},
                text=caption,
            )
            shards[name].add(facts, offset=row["offset"], size=row["size"], content_hash=content_hash)
        rows = [(shards[name], tar.size) for name in sorted(shards)]
        listing = (table.num_rows, self.scanner.name(tar))
        return write_unit(
            self.workspace,
            unit.number,
            rows,
            rejects,
            settings=self.settings(unit),
            listing=listing,
            pairs=PairFacts(official=tuple(sorted(seen)) if official == "holdout" else ()) if task == "pairs" else None,
        )


def official_split(tar: TarFile, options: WebDatasetOptions) -> str | None:
    """The split that the options give to a tar: the first glob that fits the end of its URL, from a slash on."""
    splits = checked_splits(options.splits, "[options] splits")
    return next((split for glob, split in splits.items() if fnmatch(tar.url, f"*/{glob}")), None)
