"""A clean list: which training entries of a corpus are left out, and which get another label."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from rhostream.errors import ConfigError
from rhostream.loaders.index import key_of
from rhostream.loaders.storage import UnreadableError, opened_parquet, read_csv
from rhostream.pipeline.corpora import Entry
from rhostream.plain_text import from_csv_cell, visible
from rhostream.schema import CLEAN_ACTIONS

_NEEDED = ("key", "action", "class")


def read_clean_list(file: str) -> pa.Table:
    """The rows of a clean list, Parquet or CSV.

    Raises:
        ConfigError: it cannot be read, lacks a column, or holds an unknown action or a key twice.
    """
    path = Path(file)
    as_text = {name: pa.string() for name in (*_NEEDED, "reason", "given_class", "predicted_class", "source")}
    try:
        if path.suffix.lower() == ".csv":
            options = pyarrow.csv.ConvertOptions(column_types=as_text, strings_can_be_null=True)
            table = read_csv(path, types=options)
            for name in set(as_text) & set(table.column_names):
                texts = [None if cell is None else from_csv_cell(cell) for cell in table[name].to_pylist()]
                table = table.set_column(table.column_names.index(name), name, pa.array(texts, pa.string()))
        else:
            with opened_parquet(path) as opened:
                table = opened.read()
    except FileNotFoundError as error:
        raise ConfigError(f"clean list {file}: no such file: export one") from error
    except UnreadableError as error:
        raise ConfigError(f"clean list {file} {error.cause}: export one") from error
    if missing := [name for name in _NEEDED if name not in table.column_names]:
        raise ConfigError(
            f"clean list {file} lacks the column {missing[0]}: it needs {', '.join(_NEEDED)}, as an exported one has"
        )
    for name in as_text:
        if name in table.column_names and not pa.types.is_string(kind := table.schema.field(name).type):
            raise ConfigError(f"clean list {file} has column {name} of type {kind}: write it as text")
    if nulls := table.column("key").null_count:
        raise ConfigError(f"clean list {file} has {nulls} rows without a key: give every row one")
    actions = set(table.column("action").to_pylist())
    if unknown := sorted(map(str, actions - set(CLEAN_ACTIONS))):
        raise ConfigError(f"clean list {file}: unknown action {unknown[0]!r}; known are {', '.join(CLEAN_ACTIONS)}")
    if len(set(table.column("key").to_pylist())) < table.num_rows:
        raise ConfigError(f"clean list {file} holds a key twice: give every key one row")
    return table


@dataclass(frozen=True, kw_only=True)
class CleanList:
    """What to do with entries, by key.

    Attributes:
        file: where it was read from, for messages.
        dropped: key to why.
        relabeled: key to class.
    """

    file: str
    dropped: dict[str, str]
    relabeled: dict[str, str]

    @classmethod
    def read(cls, file: str) -> "CleanList":
        """Raises ConfigError, see `read_clean_list`."""
        table = read_clean_list(file)
        rows = table.select([*_NEEDED, *(["reason"] if "reason" in table.column_names else [])]).to_pylist()
        dropped = {row["key"]: row.get("reason") or "" for row in rows if row["action"] == "drop"}
        relabeled = {row["key"]: row["class"] for row in rows if row["action"] == "relabel"}
        return cls(file=file, dropped=dropped, relabeled=relabeled)

    def applied(self, entries: Iterable[Entry], classes: Sequence[str]) -> Iterator[Entry]:
        """Entries in the same order; those of official val and test splits stay as they are.

        Raises:
            ConfigError: a class that the corpus does not have (at the call), another class for a multi-label sample, or
                keys that it lacks (at the end).
        """
        labels = {form: label for label, name in enumerate(classes) for form in (visible(name), name)}  # as in a CSV
        if unknown := sorted({str(name) for name in self.relabeled.values()} - set(labels)):
            raise ConfigError(
                f"clean list {self.file}: class {unknown[0]!r} is none of the corpus's: {', '.join(classes)}"
            )
        return self._applied(entries, labels)

    def _applied(self, entries: Iterable[Entry], labels: dict[str, int]) -> Iterator[Entry]:
        missing = self.dropped.keys() | self.relabeled.keys()
        for entry in entries:
            key = key_of(entry.source, entry.key)
            missing.discard(key)
            if entry.reason or entry.split in ("val", "test"):
                yield entry
            elif key in self.dropped:
                yield replace(entry, label=None, reason="excluded", detail=self.dropped[key] or "by the clean list")
            elif key in self.relabeled:
                if not isinstance(entry.label, int):
                    raise ConfigError(
                        f"clean list {self.file} gives {key!r} another class, which a multi-label corpus cannot take: "
                        "change its labels in the corpus, or drop it"
                    )
                yield replace(entry, label=labels[self.relabeled[key]])
            else:
                yield entry
        if missing:
            raise ConfigError(
                f"clean list {self.file}: the corpus has no entry for {len(missing)} of its keys, for "
                f"instance {min(missing)!r}: it was made from another corpus"
            )
