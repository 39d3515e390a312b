"""CSV, TSV, JSON lines and Parquet files as one typed Arrow table whose columns are flat."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rhostream.errors import CorpusError
from rhostream.loaders.storage import UnreadableError, csv_schema, opened_parquet, read_csv, read_ndjson

_DELIMITERS: Final = {".csv": ",", ".tsv": "\t"}
_JSON_LINES: Final = (".jsonl", ".ndjson")
TABLE_SUFFIXES: Final = (*_DELIMITERS, *_JSON_LINES, ".parquet")


def table_schema(path: Path) -> pa.Schema:
    """A file's columns, in order; of a CSV their names are the first line."""
    try:
        if path.suffix.lower() == ".parquet":
            with opened_parquet(path) as file:
                return file.schema_arrow
        if path.suffix.lower() in _JSON_LINES:
            return read_ndjson(path).schema
        return csv_schema(path, _csv_layout(path))
    except (FileNotFoundError, UnreadableError) as error:
        raise _unreadable(path, error) from error


def holds_lists(kind: pa.DataType) -> bool:
    """Are the values of a column of this type lists?"""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Are the values of a column of this type bytes?"""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def holds_bytes(kind: pa.DataType) -> bool:
    """Are they bytes, or do they hold some?"""
    if pa.types.is_dictionary(kind):
        return holds_bytes(kind.value_type)
    if pa.types.is_nested(kind):
        return any(holds_bytes(kind.field(place).type) for place in range(kind.num_fields))
    return is_bytes(kind) or bool(pa.types.is_fixed_size_binary(kind) or pa.types.is_binary_view(kind))


def flat_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column in a type that Parquet and DuckDB keep as it is; nested values become JSON text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return flat_column(column.cast(kind.value_type))
    if pa.types.is_nested(kind):
        texts = [
            None if value is None else json.dumps(value, ensure_ascii=False, default=str)
            for value in column.to_pylist()
        ]
        return pa.chunked_array([pa.array(texts, pa.string())])
    if pa.types.is_null(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return column.cast(pa.timestamp("us", kind.tz), safe=False)  # Python's datetime ends at microseconds
    return column


def read_tables(
    paths: Sequence[Path], columns: Sequence[str], text_columns: Sequence[str], list_column: str = ""
) -> pa.Table:
    """The given columns of all files, one after the other.

    Args:
        columns: their names, all of which each file has.
        text_columns: those of them that a CSV must not turn into numbers (a path "007").
        list_column: one of them of which an empty cell of a CSV is an empty text, and not unknown.

    Raises:
        CorpusError: a file cannot be read, or types differ between files.
    """
    tables = [_read(path, columns, text_columns, list_column) for path in paths]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        names = ", ".join(path.name for path in paths)
        raise CorpusError(
            f"{names}: a column's type differs between these files ({error}); write them alike"
        ) from error


def _read(path: Path, columns: Sequence[str], text_columns: Sequence[str], list_column: str) -> pa.Table:
    try:
        if path.suffix.lower() == ".parquet":
            with opened_parquet(path) as file:
                table = file.read(list(columns))
        elif path.suffix.lower() in _JSON_LINES:
            table = read_ndjson(path)
        else:
            convert = pa.csv.ConvertOptions(
                include_columns=list(columns),
                column_types={name: pa.string() for name in text_columns},
                # Only an empty cell is unknown: "NA" and "null" are names that classes have.
                null_values=[""],
                strings_can_be_null=True,
            )
            table = read_csv(path, _csv_layout(path), convert)
            if list_column:
                place = table.schema.get_field_index(list_column)
                table = table.set_column(place, list_column, pc.fill_null(table[list_column], ""))
    except (FileNotFoundError, UnreadableError) as error:
        raise _unreadable(path, error) from error
    return pa.table({name: flat_column(table[name]) for name in columns})


def _csv_layout(path: Path) -> pa.csv.ParseOptions:
    return pa.csv.ParseOptions(delimiter=_DELIMITERS[path.suffix.lower()], newlines_in_values=True)


def _unreadable(path: Path, error: Exception) -> CorpusError:
    kind = path.suffix.removeprefix(".").upper()
    text = " ".join(str(error).split())
    return CorpusError(f"{path} cannot be read as {kind} ({text}); correct that row or write the file again in UTF-8")
