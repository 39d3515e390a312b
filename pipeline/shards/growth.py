"""A corpus that has grown since its shards were made: which of its entries are new, and which the shards hold already.

What the shards hold is read from index and rejects, and both are brought together by the hash of their keys, a part at
a time. The units of one run of `rho shards` are a part; each run that appends adds one.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rhostream.errors import WorkspaceError
from rhostream.loaders.index import Appended, Shard, read_index
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.corpora import Entry
from rhostream.pipeline.jobs import read_ahead
from rhostream.pipeline.shards.hash_buckets import HASH
from rhostream.pipeline.shards.listed_rows import entries_of, listing_schema, rows_of
from rhostream.pipeline.shards.listing import (
    Listing,
    ListingWriter,
    all_labels,
    as_duplicate,
    hashed,
    hashes_of,
    one_of_each_key,
    sorted_rows,
    with_checked_labels,
)
from rhostream.pipeline.shards.scratch import Scratch
from rhostream.pipeline.shards.unit import UnitMaker, UnitRecord, clean_text, rejects_name
from rhostream.schema import REJECTS

_PART: Final = "part"  # of the workspace that holds the entry; -1 of what the corpus lists now
_AT_ONCE: Final = 8  # units being read
#: Reasons that are found when images have been read: of such rejects no label is known.
_NOT_READ: Final = (
    "missing",
    "unreadable",
    "empty",
    "truncated",
    "not_an_image",
    "html",
    "decompression_bomb",
    "straddling",
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Units that one run has made: their numbers, and how many entries the corpus listed then."""

    units: range
    listed: int


@dataclass(frozen=True, kw_only=True)
class Growth:
    """A corpus as it is now beside what a workspace holds of it.

    Attributes:
        parts: what each part lists, by the corpus as it is now.
        added: the entries that no part has.
        removed: entries that parts have, and the corpus no longer lists.
        changed: those which it lists with another label, official split or source, or refuses for another reason.
    """

    parts: tuple[Listing, ...]
    added: Listing
    removed: int
    changed: int


def parts_of(workspace: Workspace, shard_size: int, appended: Sequence[Appended]) -> list[Part]:
    """The parts of a finished workspace.

    Raises:
        WorkspaceError: the record of a part's first unit is missing or damaged.
    """
    parts: list[Part] = []
    for number in range(1 + len(appended)):
        first = parts[-1].units.stop if parts else 0
        record = UnitRecord.read(workspace, first)
        if record is None:
            raise WorkspaceError(
                f"{workspace.path(rejects_name(first))} is missing or damaged, which tells what is in the first shards "
                f"of part {number}: restore it, or remake the workspace with --overwrite"
            )
        listed = record.listing[0]
        new = listed - (parts[-1].listed if parts else 0)
        parts.append(Part(units=range(first, first + -(-new // shard_size)), listed=listed))
    return parts


def growth_of(maker: UnitMaker, entries: Iterator[Entry], parts: Sequence[Part], scratch: Scratch) -> Growth:
    """Compare the entries of a corpus with what its workspace holds.

    Raises:
        WorkspaceError: an index or the rejects of a unit cannot be read.
    """
    manifest, schema = maker.manifest, listing_schema(maker.extra_columns)
    held = (_held(maker, part, number, schema) for number, part in enumerate(parts))
    checked = with_checked_labels(entries, len(maker.corpus.classes))
    listed = hashed(checked, schema, seed=manifest.seed)
    of_now = (rows.append_column(_PART, pa.array(np.full(len(rows), -1, np.int32))) for rows in listed)
    writers = [
        ListingWriter(schema, scratch, unit_size=manifest.shard_size, first=units.start)
        for units in (*(part.units for part in parts), range(parts[-1].units.stop, 0))
    ]
    removed = changed = 0
    # What is held comes first, so that it stands first among the rows of a key.
    for rows in sorted_rows(itertools.chain(*held, of_now), scratch):
        found = _compared(rows, schema)
        removed, changed = removed + found.removed, changed + found.changed
        for number, writer in enumerate(writers[:-1]):
            writer.add(found.kept.filter(pc.equal(found.kept[_PART], number)))
        writers[-1].add(found.added)
    *kept, added = (writer.finish() for writer in writers)
    return Growth(parts=tuple(kept), added=added, removed=removed, changed=changed)


def appended_now(part: Listing, fingerprint: str) -> Appended:
    """What the card says of a part that is added today (or on the day of `SOURCE_DATE_EPOCH`).

    Args:
        fingerprint: of the corpus before.
    """
    told = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = datetime.fromtimestamp(int(told), UTC) if told.isdecimal() else datetime.now(UTC)
    return Appended(
        date=now.date().isoformat(),
        entries=part.entries,
        units=part.units,
        first_unit=part.first,
        fingerprint=fingerprint,
    )


def _held(maker: UnitMaker, part: Part, number: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """What the units of a part hold, as rows of a listing."""
    for rows in read_ahead(lambda unit: _held_by(maker, unit, schema), part.units, _AT_ONCE):
        hashes = hashes_of(rows["key"].to_pylist(), maker.manifest.seed)
        yield rows.append_column(HASH, hashes).append_column(_PART, pa.array(np.full(len(rows), number, np.int32)))


def _held_by(maker: UnitMaker, number: int, schema: pa.Schema) -> pa.Table:
    workspace = maker.workspace
    record = UnitRecord.read(workspace, number)
    try:
        if record is None:
            raise WorkspaceError(f"{workspace.path(rejects_name(number))} is missing or damaged")
        keys, entries = [], []
        for shard, _, _ in record.shards:
            for row in _samples(workspace, shard, maker.manifest.task):
                keys.append(row["key"])
                label = row["label"] if "label" in row else tuple(row.get("labels", ()))
                split = row["split"] if row["split"] in ("val", "test") else None
                entries.append(Entry(source=row["source"], split=split, label=label, text=row.get("text")))
        for row in workspace.read_table(rejects_name(number), schema=REJECTS).to_pylist():
            keys.append(row["key"])
            entries.append(Entry(source=row["source"], reason=row["reason"], detail=row["detail"]))
    except WorkspaceError as error:
        raise WorkspaceError(
            f"{error.message}: only shards of which index and rejects are whole can be appended to; restore it, or "
            "remake the workspace with --overwrite"
        ) from error
    return rows_of(keys, entries, schema)


def _samples(workspace: Workspace, shard: Shard, task: str) -> list[dict[str, Any]]:
    label = {"multi_label": "labels", "pairs": "text"}.get(task, "label")
    rows: list[dict[str, Any]] = read_index(workspace, shard, ["key", "source", "split", label]).to_pylist()
    return rows


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """Rows of the corpus as it is now, those that parts have with the part."""

    kept: pa.Table
    added: pa.Table
    removed: int
    changed: int


def _compared(rows: pa.Table, schema: pa.Schema) -> _Compared:
    keys = rows["key"].combine_chunks()
    is_first = np.insert(pc.not_equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False), 0, True)
    group = np.cumsum(is_first) - 1
    held = rows[_PART].to_numpy() >= 0
    holders, listings = (
        np.bincount(group[held], minlength=group[-1] + 1),
        np.bincount(group[~held], minlength=group[-1] + 1),
    )
    one_each = ((holders == 1) & (listings == 1))[group]
    new = (holders == 0)[group]
    gone = int(holders[listings == 0].sum())
    pairs, now = rows.filter(pa.array(one_each & held)), rows.filter(pa.array(one_each & ~held))
    kept = now.set_column(now.column_names.index(_PART), _PART, pairs[_PART])
    changed = int(_differing(pairs, now).sum())
    added = [one_of_each_key(rows.filter(pa.array(new)), schema)]
    kept_too = []
    for key_rows in _groups(rows, group, ~(one_each | new) & (listings > 0)[group]):
        found = _of_a_key(key_rows, schema)
        kept_too.append(found.kept)
        added.append(found.added)
        gone, changed = gone + found.removed, changed + found.changed
    order = [(HASH, "ascending"), ("key", "ascending")]
    everything = [pa.concat_tables(tables) for tables in ([kept, *kept_too], added)]
    kept, more = (table.take(pc.sort_indices(table, order)) for table in everything)
    return _Compared(kept=kept, added=more, removed=gone, changed=changed)


def _groups(rows: pa.Table, group: npt.NDArray[np.int64], wanted: npt.NDArray[np.bool_]) -> Iterator[pa.Table]:
    at = np.flatnonzero(wanted)
    for positions in np.split(at, np.flatnonzero(np.diff(group[at])) + 1) if len(at) else ():
        yield rows.take(pa.array(positions))


def _differing(held: pa.Table, now: pa.Table) -> npt.NDArray[np.bool_]:
    """bool (n,): which of the entries are not what they were, as far as the workspace tells."""
    suspects = np.zeros(len(now), bool)
    for column in ("source", "split", "label", "reason"):
        equal = pc.equal(held[column], now[column]).fill_null(False)
        both_null = pc.and_(held[column].is_null(), now[column].is_null())
        suspects |= ~pc.or_(equal, both_null).to_numpy()
    suspects |= pc.or_(held["labels"].is_valid(), now["labels"].is_valid()).to_numpy()
    at = pa.array(np.flatnonzero(suspects))
    pairs = zip(entries_of(held.take(at)), entries_of(now.take(at)), strict=True)
    suspects[suspects] = [_differs(before, after) for (_, before), (_, after) in pairs]
    return suspects


def _differs(before: Entry, now: Entry) -> bool:
    if before.source != clean_text(now.source):
        return True
    if before.reason:
        return now.reason != before.reason and not (before.reason in _NOT_READ and not now.reason)
    official = now.split if now.split in ("val", "test") else None
    same = all_labels(before) == all_labels(now) and before.text == now.text
    return bool(now.reason) or before.split != official or not same


def _of_a_key(rows: pa.Table, schema: pa.Schema) -> _Compared:
    """Of a key that several entries have, some of them held: these stay what they are, and others are refused."""
    entries = list(zip(rows[_PART].to_pylist(), entries_of(rows), strict=True))
    held = [(part, entry) for part, (_, entry) in entries if part >= 0]
    listed = [entry for part, (_, entry) in entries if part < 0]
    key, hash_of = rows["key"][0].as_py(), rows[HASH][0]
    kept: list[tuple[int, Entry]] = []
    removed = changed = 0
    for part, entry in held:
        same = [each for each in listed if clean_text(each.source) == entry.source]
        now = next((each for each in same if not _differs(entry, each)), same[0] if same else None)
        if now is None:
            removed += 1
            continue
        listed.remove(now)
        if entry.reason == "duplicate_key" and not now.reason:
            now = as_duplicate(now, key, entry.detail.removeprefix(f"key {key} belongs to "))
        changed += _differs(entry, now)
        kept.append((part, now))
    owner = next((entry.source for _, entry in held if not entry.reason), None)
    if owner is not None:
        listed = [each if each.reason else as_duplicate(each, key, owner) for each in listed]

    def table(found: Sequence[tuple[int, Entry]]) -> pa.Table:
        made = rows_of([key] * len(found), [entry for _, entry in found], schema)
        made = made.append_column(HASH, pa.array([hash_of.as_py()] * len(found), pa.uint64()))
        return made.append_column(_PART, pa.array([part for part, _ in found], pa.int32())).select(rows.column_names)

    added = table([(-1, entry) for entry in listed])
    return _Compared(
        kept=table(kept),
        added=added if owner is not None else one_of_each_key(added, schema),
        removed=removed,
        changed=changed,
    )
