"""A clean list: which training entries of a corpus are left out, and which get another label.

It is gone through, and brought together with the entries by their keys: neither is in memory as a whole, but for a list
in CSV, which is read at once.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rhostream.errors import ConfigError
from rhostream.loaders.storage import UnreadableError, opened_parquet, read_csv, record_batches
from rhostream.pipeline.corpora import Entry
from rhostream.pipeline.shards.hash_buckets import HASH
from rhostream.pipeline.shards.listed_rows import entries_of, rows_of
from rhostream.pipeline.shards.listing import hashed, hashes_of, sorted_rows
from rhostream.pipeline.shards.scratch import Scratch
from rhostream.plain_text import from_csv_cell, visible
from rhostream.schema import CLEAN_ACTIONS

_NEEDED: Final = ("key", "action", "class")
_TEXTS: Final = (*_NEEDED, "reason", "given_class", "predicted_class", "source")
_ASKED: Final = pa.schema([(name, pa.string()) for name in ("action", "class", "why")])  # of an entry, null of others
_AT_ONCE: Final = 1 << 14  # rows
_SEED: Final = 0  # of a hash that only brings together


def read_clean_list(file: str) -> pa.Table:
    """The rows of a clean list, Parquet or CSV, all in memory.

    Raises:
        ConfigError: it cannot be read, lacks a column, or holds an unknown action or a key twice.
    """
    table = pa.concat_tables(_tables(file))
    if len(set(table.column("key").to_pylist())) < table.num_rows:
        raise _twice(file)
    return table


@dataclass(frozen=True, kw_only=True)
class CleanList:
    """What to do with entries, by key.

    Attributes:
        file: where it is read from.
        classes: that it gives to entries.
    """

    file: str
    classes: frozenset[str]

    @classmethod
    def read(cls, file: str) -> "CleanList":
        """Raises ConfigError: it cannot be read, lacks a column, or holds an unknown action."""
        classes: set[str] = set()
        for table in _tables(file):
            given = table["class"].filter(pc.equal(table["action"], "relabel"))
            classes |= {str(name) for name in pc.unique(given).to_pylist()}
        return cls(file=file, classes=frozenset(classes))

    def applied(
        self, entries: Iterable[Entry], classes: Sequence[str], schema: pa.Schema, scratch: Scratch
    ) -> Iterator[Entry]:
        """Entries in another order, those of a key in that which they had; of official val and test splits unchanged.

        Args:
            schema: of their listing.

        Raises:
            ConfigError: a class that the corpus does not have (at the call), another class for a multi-label sample, a
                key twice, or keys that the corpus lacks (at the end).
        """
        labels = {form: label for label, name in enumerate(classes) for form in (visible(name), name)}  # as in a CSV
        if unknown := sorted(self.classes - set(labels)):
            raise ConfigError(
                f"clean list {self.file}: class {unknown[0]!r} is none of the corpus's: {', '.join(classes)}"
            )
        return self._applied(entries, labels, schema, scratch)

    def _applied(
        self, entries: Iterable[Entry], labels: dict[str, int], schema: pa.Schema, scratch: Scratch
    ) -> Iterator[Entry]:
        missing, example = 0, ""
        # What is asked of a key comes first, so that it stands first among the rows of the key.
        for rows in sorted_rows(chain(self._asked(schema), _unasked(entries, schema)), scratch):
            asked = zip(*(rows[name].to_pylist() for name in _ASKED.names), strict=True)
            key, of_key, is_met = "", None, True
            for (other, entry), (action, name, why) in zip(entries_of(rows.select(schema.names)), asked, strict=True):
                if action is None:
                    is_met = is_met or key == other
                    yield entry if of_key is None or key != other else self._changed(entry, key, of_key, labels)
                    continue
                if key == other:
                    raise _twice(self.file)
                missing, example = missing + (not is_met), example if is_met else min(example or key, key)
                key, of_key, is_met = other, (action, name, why), action == "keep"
            missing, example = missing + (not is_met), example if is_met else min(example or key, key)
        if missing:
            raise ConfigError(
                f"clean list {self.file}: the corpus has no entry for {missing} of its keys, for "
                f"instance {example!r}: it was made from another corpus"
            )

    def _changed(self, entry: Entry, key: str, asked: tuple[str, str, str | None], labels: dict[str, int]) -> Entry:
        action, name, why = asked
        if action == "keep" or entry.reason or entry.split in ("val", "test"):
            return entry
        if action == "drop":
            return replace(entry, label=None, reason="excluded", detail=why or "by the clean list")
        if not isinstance(entry.label, int):
            raise ConfigError(
                f"clean list {self.file} gives {key!r} another class, which a multi-label corpus cannot take: "
                "change its labels in the corpus, or drop it"
            )
        return replace(entry, label=labels[name])

    def _asked(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """Its rows, as entries of which nothing but the key is known."""
        for table in _tables(self.file):
            keys, nobody = table["key"].to_pylist(), Entry(source="")
            rows = rows_of(keys, [nobody] * len(keys), schema).append_column(HASH, hashes_of(keys, _SEED))
            why = table["reason"] if "reason" in table.column_names else pa.nulls(len(keys), pa.string())
            for name, column in zip(_ASKED.names, (table["action"], table["class"], why), strict=True):
                rows = rows.append_column(name, column)
            yield rows


def _unasked(entries: Iterable[Entry], schema: pa.Schema) -> Iterator[pa.Table]:
    """Entries of a corpus, in the same columns."""
    for rows in hashed(entries, schema, seed=_SEED):
        for name in _ASKED.names:
            rows = rows.append_column(name, pa.nulls(len(rows), pa.string()))
        yield rows


def _tables(file: str) -> Iterator[pa.Table]:
    """The rows, some at a time; one table at least.

    Raises:
        ConfigError: see `CleanList.read`.
    """
    try:
        if Path(file).suffix.lower() == ".csv":
            yield _checked(_of_csv(file), file)
            return
        with opened_parquet(Path(file)) as opened:
            yield _checked(opened.schema_arrow.empty_table(), file)
            for batch in record_batches(opened, opened.schema_arrow.names, _AT_ONCE):
                yield _checked(pa.Table.from_batches([batch]), file)
    except FileNotFoundError as error:
        raise ConfigError(f"clean list {file}: no such file: export one") from error
    except UnreadableError as error:
        raise ConfigError(f"clean list {file} {error.cause}: export one") from error


def _of_csv(file: str) -> pa.Table:
    as_text = {name: pa.string() for name in _TEXTS}
    table = read_csv(Path(file), types=pyarrow.csv.ConvertOptions(column_types=as_text, strings_can_be_null=True))
    for name in set(as_text) & set(table.column_names):
        texts = [None if cell is None else from_csv_cell(cell) for cell in table[name].to_pylist()]
        table = table.set_column(table.column_names.index(name), name, pa.array(texts, pa.string()))
    return table


def _checked(table: pa.Table, file: str) -> pa.Table:
    if missing := [name for name in _NEEDED if name not in table.column_names]:
        raise ConfigError(
            f"clean list {file} lacks the column {missing[0]}: it needs {', '.join(_NEEDED)}, as an exported one has"
        )
    for name in _TEXTS:
        if name in table.column_names and not pa.types.is_string(kind := table.schema.field(name).type):
            raise ConfigError(f"clean list {file} has column {name} of type {kind}: write it as text")
    if nulls := table.column("key").null_count:
        raise ConfigError(f"clean list {file} has {nulls} rows without a key: give every row one")
    actions = set(pc.unique(table.column("action")).to_pylist())
    if unknown := sorted(map(str, actions - set(CLEAN_ACTIONS))):
        raise ConfigError(f"clean list {file}: unknown action {unknown[0]!r}; known are {', '.join(CLEAN_ACTIONS)}")
    return table


def _twice(file: str) -> ConfigError:
    return ConfigError(f"clean list {file} holds a key twice: give every key one row")
