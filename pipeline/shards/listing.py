"""The seeded listing of a corpus: every entry with its key, in one order, cut into slices (units of work).

It is never in memory as a whole. Entries are brought together by a hash of seed and key, whose order is the listing's;
one key never stands on both sides of a border, so that duplicates are found among a few of them.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rhostream.errors import CorpusError, WorkspaceError
from rhostream.loaders.index import key_of
from rhostream.loaders.storage import UnreadableError, opened_parquet
from rhostream.pipeline.corpora import Entry
from rhostream.pipeline.shards.hash_buckets import HASH, bring_together
from rhostream.pipeline.shards.listed_rows import entries_of, listing_schema, rows_of
from rhostream.pipeline.shards.refusals import Refusals, add_refusals, example
from rhostream.pipeline.shards.scratch import Scratch

_AT_ONCE: Final = 1 << 14  # entries that become rows together
_FILE_ROWS: Final = 1 << 18
_PRECEDENCE: Final[dict[str | None, int]] = {"test": 0, "val": 1}


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One slice of the listing, as rows of `listed_rows`.

    Attributes:
        binding: of pairs the captions that the split follows, see `rhostream.pipeline.shards.captions`.
    """

    number: int
    rows: pa.RecordBatch
    binding: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """(key, entry), in order."""
        return entries_of(self.rows)


class Listing:
    """Entries in seeded order, cut into units: in memory, or in Parquet files of which each row group is a unit.

    Attributes:
        entries: their number.
        refused: reason to number and an example, of those that the listing alone refuses.
        first: number of the first unit.
    """

    def __init__(
        self, rows: pa.Table | Path, *, unit_size: int, entries: int, refused: Refusals, first: int = 0
    ) -> None:
        self._rows, self._unit_size = rows, unit_size
        self.entries, self.refused, self.first = entries, refused, first

    @property
    def units(self) -> int:
        return -(-self.entries // self._unit_size)

    def unit(self, number: int) -> Unit:
        """The unit `number`."""
        place = number - self.first
        if isinstance(self._rows, pa.Table):
            rows = self._rows.slice(place * self._unit_size, self._unit_size)
        else:
            within = place % _units_of_file(self._unit_size)
            with _opened(_file(self._rows, place - within)) as file:
                rows = file.read_row_group(within, use_threads=False)
        return Unit(number=number, rows=rows.combine_chunks().to_batches()[0])

    def tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """These columns of all rows, some of them at a time."""
        if isinstance(self._rows, pa.Table):
            yield self._rows.select(columns)
            return
        for first in range(0, self.units, _units_of_file(self._unit_size)):
            with _opened(_file(self._rows, first)) as file:
                yield file.read(columns, use_threads=False)


class ListingWriter:
    """Makes a listing from tables of rows in its order. A short one stays in memory."""

    def __init__(self, schema: pa.Schema, scratch: Scratch, *, unit_size: int, first: int = 0) -> None:
        self._schema, self._scratch, self._unit_size, self._first = schema, scratch, unit_size, first
        self._folder: Path | None = None
        self._pending = [schema.empty_table()]
        self._waiting = self._written = 0
        self._refused: Refusals = {}

    def add(self, rows: pa.Table) -> None:
        """Rows of `listed_rows`; other columns are left out."""
        rows = rows.select(self._schema.names)
        self._count(rows)
        self._pending.append(rows)
        self._waiting += rows.num_rows
        size = _units_of_file(self._unit_size) * self._unit_size
        if self._waiting < size:
            return
        waiting = pa.concat_tables(self._pending)
        for start in range(0, self._waiting - size + 1, size):
            self._write(waiting.slice(start, size))
        self._waiting %= size
        self._pending = [waiting.slice(len(waiting) - self._waiting)]

    def finish(self) -> Listing:
        rest = pa.concat_tables(self._pending)
        if self._folder is not None and len(rest):
            self._write(rest)
        entries = self._written + (len(rest) if self._folder is None else 0)
        rows = rest.combine_chunks() if self._folder is None else self._folder
        return Listing(rows, unit_size=self._unit_size, entries=entries, refused=self._refused, first=self._first)

    def _count(self, rows: pa.Table) -> None:
        refused = rows.select(["source", "reason", "detail"]).filter(pc.not_equal(rows["reason"], ""))
        counts = pc.value_counts(refused["reason"]).to_pylist()
        for reason, count in ((found["values"], found["counts"]) for found in counts):
            first = refused.slice(pc.index(refused["reason"], reason).as_py(), 1).to_pylist()[0]
            shown = example(*(first[name].decode("utf-8", "surrogatepass") for name in ("source", "detail")))
            add_refusals(self._refused, {reason: (count, shown)})

    def _write(self, rows: pa.Table) -> None:
        """One file."""
        if self._folder is None:
            self._folder = self._scratch.folder()
        pq.write_table(
            rows.combine_chunks(),
            _file(self._folder, self._written // self._unit_size),
            row_group_size=self._unit_size,
            compression="zstd",
            use_dictionary=["split", "reason"],
            write_statistics=False,
        )
        self._written += len(rows)


def list_entries(
    entries: Iterable[Entry],
    scratch: Scratch,
    *,
    classes: int,
    seed: int,
    unit_size: int,
    extra_columns: Mapping[str, pa.DataType] = {},
) -> Listing:
    """List a corpus: refuse bad labels and all but one entry of a key, and shuffle by a hash of seed and key.

    Of the entries of one key the first stays, in the order test, val, train, then by source and label.

    Args:
        scratch: for the listing's files, and what is written on the way to them.

    Raises:
        CorpusError: there is no entry.
    """
    schema = listing_schema(extra_columns)
    writer = ListingWriter(schema, scratch, unit_size=unit_size)
    for rows in sorted_rows(hashed(with_checked_labels(entries, classes), schema, seed=seed), scratch):
        writer.add(one_of_each_key(rows, schema))
    listing = writer.finish()
    if not listing.entries:
        raise CorpusError("the corpus lists no entries: check its root and the options of its format")
    return listing


def sorted_rows(tables: Iterable[pa.Table], scratch: Scratch) -> Iterator[pa.Table]:
    """All rows as tables sorted by hash and key, in their order where these are equal; those of a key in one table."""
    for table in bring_together(tables, scratch):
        yield table.take(pc.sort_indices(table, [(HASH, "ascending"), ("key", "ascending")]))


def one_of_each_key(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Sorted rows in the same order, where all but one of each key are refused."""
    keys = rows["key"].combine_chunks()
    if len(keys) < 2:
        return rows
    as_before = pc.equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
    if not as_before.any():
        return rows
    several = np.append(as_before, False) | np.insert(as_before, 0, False)
    at = np.flatnonzero(several)
    hashes = dict(zip(keys.take(pa.array(at)).to_pylist(), rows[HASH].to_numpy()[at].tolist(), strict=True))
    groups: dict[str, list[Entry]] = {}
    for key, entry in entries_of(rows.take(pa.array(at))):
        groups.setdefault(key, []).append(entry)
    told = [(key, entry) for key, group in groups.items() for entry in _one_of_a_key(key, group)]
    refused = rows_of([key for key, _ in told], [entry for _, entry in told], schema)
    refused = refused.append_column(HASH, pa.array([hashes[key] for key, _ in told], pa.uint64()))
    singles = rows.filter(pa.array(~several))
    both = pa.concat_tables([singles, refused.select(rows.schema.names)])
    return both.take(pc.sort_indices(both, [(HASH, "ascending"), ("key", "ascending")]))


def with_checked_labels(entries: Iterable[Entry], classes: int) -> Iterator[Entry]:
    """The same; those with labels that are none are refused."""
    return (_checked_label(entry, classes) for entry in entries)


def hashed(entries: Iterable[Entry], schema: pa.Schema, *, seed: int) -> Iterator[pa.Table]:
    """Entries as rows with the `hash` that orders them."""
    rest = iter(entries)
    while some := list(islice(rest, _AT_ONCE)):
        keys = [key_of(entry.source, entry.key) for entry in some]
        yield rows_of(keys, some, schema).append_column(HASH, hashes_of(keys, seed))


def hashes_of(keys: Iterable[str], seed: int) -> pa.UInt64Array:
    """Whose order is that of the listing."""
    salt = str(seed).encode()[:64]
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=8, key=salt).digest() for key in keys)
    return pa.array(np.frombuffer(digests, ">u8").astype(np.uint64))


def _units_of_file(unit_size: int) -> int:
    return max(1, _FILE_ROWS // unit_size)


def _file(folder: Path, first: int) -> Path:
    return folder / f"{first:06d}.parquet"


@contextmanager
def _opened(file: Path) -> Iterator[pq.ParquetFile]:
    """Raises WorkspaceError where the scratch is gone or damaged."""
    try:
        with opened_parquet(file) as opened:
            yield opened
    except (FileNotFoundError, UnreadableError) as error:
        raise WorkspaceError(f"scratch file {file} {error}: run the same command again, it makes it anew") from error


def _checked_label(entry: Entry, classes: int) -> Entry:
    if entry.reason:
        return entry
    if entry.label is None:
        return replace(entry, reason="label_missing", detail="the corpus gives no label")
    labels = all_labels(entry)
    if labels and not (min(labels) >= 0 and max(labels) < classes):
        detail = f"label {entry.label}, classes are 0 to {classes - 1}"
        return replace(entry, label=None, reason="label_out_of_range", detail=detail)
    return entry


def _one_of_a_key(key: str, entries: Iterable[Entry]) -> Iterator[Entry]:
    first, *others = sorted(entries, key=_rank)
    yield first
    for other in others:
        if other.reason:
            yield other
        else:
            yield as_duplicate(other, key, first.source)


def as_duplicate(entry: Entry, key: str, owner: str) -> Entry:
    """The entry, refused as its key belongs to the source `owner`."""
    return replace(entry, label=None, reason="duplicate_key", detail=f"key {key} belongs to {owner}")


def _rank(entry: Entry) -> tuple[bool, int, str, tuple[int, ...], str]:
    return (bool(entry.reason), _PRECEDENCE.get(entry.split, 2), entry.source, all_labels(entry), entry.reason)


def all_labels(entry: Entry) -> tuple[int, ...]:
    """All that an entry has: one of a classification, none where it is refused."""
    label = entry.label
    return () if label is None else (label,) if isinstance(label, int) else label
