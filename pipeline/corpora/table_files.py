"""CSV, TSV, JSON lines and Parquet files as one typed Arrow table whose columns are flat."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rhostream.errors import CorpusError
from rhostream.loaders.storage import UnreadableError, csv_schema, opened_parquet, read_csv, read_ndjson

_DELIMITERS: Final = {".csv": ",", ".tsv": "\t"}
_JSON_LINES: Final = (".jsonl", ".ndjson")
TABLE_SUFFIXES: Final = (*_DELIMITERS, *_JSON_LINES, ".parquet")


#: Columns that `read_tables` adds: which of the files a row is of, and its number there; 0 is the first.
FILE, ROW = "\0file", "\0row"


@dataclass(frozen=True, kw_only=True)
class CsvForm:
    """How CSV and TSV files are written.

    Attributes:
        columns: names of the columns of files whose first line is a row; () where it names the columns.
        quotes: is a double quote at the beginning of a cell one around it?
    """

    columns: tuple[str, ...] = ()
    quotes: bool = True

    def parse(self, path: Path) -> pa.csv.ParseOptions:
        quote = {} if self.quotes else {"quote_char": False}
        return pa.csv.ParseOptions(delimiter=_DELIMITERS[path.suffix.lower()], newlines_in_values=self.quotes, **quote)

    def read(self) -> pa.csv.ReadOptions:
        return pa.csv.ReadOptions(column_names=list(self.columns)) if self.columns else pa.csv.ReadOptions()


def table_schema(path: Path, form: CsvForm) -> pa.Schema:
    """A file's columns, in order.

    Raises:
        CorpusError: the file cannot be read, or the name of a column is not UTF-8.
    """
    try:
        if path.suffix.lower() == ".parquet":
            with opened_parquet(path) as file:
                found = file.schema_arrow
        elif path.suffix.lower() in _JSON_LINES:
            found = read_ndjson(path).schema
        else:
            found = csv_schema(path, form.parse(path), form.read())
        _decode_names(found)
    except (FileNotFoundError, UnreadableError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    return found


def _decode_names(fields: Iterable[pa.Field]) -> None:
    """Raises UnicodeDecodeError where a name is not UTF-8, which Arrow would find out when it is asked for."""
    for field in fields:
        _ = field.name
        if pa.types.is_nested(field.type):
            _decode_names(field.type.field(place) for place in range(field.type.num_fields))


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
    paths: Sequence[Path],
    columns: Sequence[str],
    text_columns: Sequence[str],
    list_column: str = "",
    *,
    form: CsvForm,
    raw: bool = False,
) -> pa.Table:
    """The given columns of all files, one after the other, with `FILE` and `ROW`.

    Args:
        columns: their names, all of which each file has.
        text_columns: those of them that a CSV must not turn into numbers (a path "007").
        list_column: one of them of which an empty cell of a CSV is an empty text, and not unknown.
        form: of CSV and TSV files.
        raw: give the text columns as bytes, which need not be UTF-8.

    Raises:
        CorpusError: a file cannot be read, or types differ between files.
    """
    tables = [
        _numbered(_read(path, columns, text_columns, list_column, form, raw), number)
        for number, path in enumerate(paths)
    ]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        names = ", ".join(path.name for path in paths)
        raise CorpusError(
            f"{names}: a column's type differs between these files ({error}); write them alike"
        ) from error


def _numbered(table: pa.Table, file: int) -> pa.Table:
    files, rows = np.full(table.num_rows, file, np.int32), np.arange(table.num_rows, dtype=np.int64)
    return table.append_column(FILE, pa.array(files)).append_column(ROW, pa.array(rows))


def _read(
    path: Path, columns: Sequence[str], text_columns: Sequence[str], list_column: str, form: CsvForm, raw: bool
) -> pa.Table:
    try:
        if path.suffix.lower() == ".parquet":
            with opened_parquet(path) as file:
                table = file.read(list(columns))
        elif path.suffix.lower() in _JSON_LINES:
            table = read_ndjson(path)
        else:
            convert = pa.csv.ConvertOptions(
                include_columns=list(columns),
                column_types={name: pa.binary() if raw else pa.string() for name in text_columns},
                # Only an empty cell is unknown: "NA" and "null" are names that classes have.
                null_values=[""],
                strings_can_be_null=True,
            )
            table = read_csv(path, form.parse(path), convert, form.read())
            if list_column:
                place = table.schema.get_field_index(list_column)
                table = table.set_column(place, list_column, pc.fill_null(table[list_column], ""))
        if not raw:
            _require_sound(table, columns)
    except (FileNotFoundError, UnreadableError) as error:
        raise _unreadable(path, error) from error
    return pa.table({name: _bytes(table[name]) if raw else flat_column(table[name]) for name in columns})


def _require_sound(table: pa.Table, columns: Sequence[str]) -> None:
    """Raises UnreadableError where a text is not UTF-8, which Arrow does not look for in JSON lines and Parquet."""
    for name in columns:
        try:
            table[name].validate(full=True)
        except pa.ArrowInvalid as error:
            raise UnreadableError(f"column {name!r}: {error}") from error


def _bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of texts as bytes; of other values, as Arrow writes them."""
    texts = pa.types.is_string(column.type) or pa.types.is_binary(column.type)
    return (column if texts else flat_column(column).cast(pa.string())).cast(pa.binary())


def _unreadable(path: Path, error: Exception) -> CorpusError:
    kind = path.suffix.removeprefix(".").upper()
    text = " ".join(str(error).split())
    return CorpusError(f"{path} cannot be read as {kind} ({text}); correct that row or write the file again in UTF-8")
