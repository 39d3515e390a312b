"""Entries of a corpus as rows of its listing, and back: what comes back is equal to what was listed."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from rhostream.pipeline.corpora import Entry

EXTRA: Final = "extra."  # begins the names of the extra columns
_FIELDS: Final = (
    pa.field("key", pa.string(), nullable=False),
    pa.field("source", pa.binary(), nullable=False),  # UTF-8, but for names that are none
    pa.field("split", pa.string()),
    pa.field("label", pa.int32()),
    pa.field("labels", pa.list_(pa.int32())),
    pa.field("text", pa.string()),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("detail", pa.binary(), nullable=False),
    pa.field("locator", pa.string()),
    pa.field("extra_given", pa.list_(pa.int32()), nullable=False),  # numbers of the extra columns that the entry has
)
_BYTES: Final = "base64"


def listing_schema(extra_columns: Mapping[str, pa.DataType]) -> pa.Schema:
    """The columns of a listing, of a corpus with these extra columns."""
    return pa.schema([*_FIELDS, *(pa.field(EXTRA + name, kind) for name, kind in extra_columns.items())])


def rows_of(keys: Sequence[str], entries: Sequence[Entry], schema: pa.Schema) -> pa.Table:
    """A row for each entry."""
    extras = [name.removeprefix(EXTRA) for name in schema.names[len(_FIELDS) :]]
    labels = [entry.label for entry in entries]
    columns: dict[str, Sequence[Any]] = {
        "key": keys,
        "source": [entry.source.encode("utf-8", "surrogatepass") for entry in entries],
        "split": [entry.split for entry in entries],
        "label": [label if isinstance(label, int) else None for label in labels],
        "labels": [None if isinstance(label, int) else label for label in labels],
        "text": [entry.text for entry in entries],
        "reason": [entry.reason for entry in entries],
        "detail": [entry.detail.encode("utf-8", "surrogatepass") for entry in entries],
        "locator": [json.dumps(entry.locator, default=_as_text) if entry.locator else None for entry in entries],
        "extra_given": [[number for number, name in enumerate(extras) if name in entry.extra] for entry in entries],
        **{EXTRA + name: [entry.extra.get(name) for entry in entries] for name in extras},
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def entries_of(rows: pa.Table | pa.RecordBatch) -> Iterator[tuple[str, Entry]]:
    """(key, entry) of every row."""
    extras = [name.removeprefix(EXTRA) for name in rows.schema.names if name.startswith(EXTRA)]
    for row in rows.to_pylist():
        label = row["label"] if row["labels"] is None else tuple(row["labels"])
        given = [extras[number] for number in row["extra_given"]]
        entry = Entry(
            source=row["source"].decode("utf-8", "surrogatepass"),
            key=row["key"],
            split=row["split"],
            label=label,
            text=row["text"],
            reason=row["reason"],
            detail=row["detail"].decode("utf-8", "surrogatepass"),
            extra={name: row[EXTRA + name] for name in given},
            locator=tuple(json.loads(row["locator"], object_hook=_as_bytes)) if row["locator"] else (),
        )
        yield row["key"], entry


def _as_text(value: Any) -> dict[str, str]:
    if not isinstance(value, bytes):
        raise TypeError(f"a locator holds {type(value).__name__}: it may hold numbers, text and bytes")
    return {_BYTES: base64.b64encode(value).decode()}


def _as_bytes(value: dict[str, str]) -> bytes:
    return base64.b64decode(value[_BYTES])
