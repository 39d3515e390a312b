"""Print a table: aligned text for people; JSON, CSV or Parquet for machines, with every value in full."""

import base64
import csv
import datetime
import decimal
import io
import json
import math
import sys
import textwrap
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from rhostream import ConfigError
from rhostream.plain_text import csv_cell, json_visible, told, visible

if TYPE_CHECKING:
    import pyarrow as pa

    from rhostream.loaders.storage import OutputFile

FORMATS = ("table", "json", "csv", "parquet")
DIGITS = 4  # of a number in a table; the other formats have all
WRAPPED = 60  # characters of a list in a table


def chosen_format(named: str | None, output: str | None, as_json: bool) -> str:
    """The format to write: the one named, else that of the suffix of `output`, else JSON where asked, or a table."""
    suffix = Path(output).suffix.lstrip(".").lower() if output else ""
    return named or (suffix if suffix in FORMATS else "json" if as_json else "table")


def say(text: str = "", *, err: bool = False) -> None:
    """Print lines for people; what stands in them of a corpus or a URL can do no harm."""
    click.echo(told(text), err=err)


def say_json(value: Any) -> None:
    """Print a JSON document."""
    click.echo(json_visible(json.dumps(value, indent=1, ensure_ascii=False)))


def say_result(found: dict[str, Any], text: str, as_json: bool) -> None:
    """Print what a command has made: a JSON object, or for people."""
    if as_json:
        say_json(found)
    else:
        say(text)


def print_table(table: "pa.Table", form: str, output: "OutputFile | None" = None) -> None:
    """Write `table` to stdout or to a file.

    Raises:
        ConfigError: Parquet for a terminal, a type that the format cannot hold, a file that cannot be written.
    """
    if output is not None:
        with output.writing() as file:
            _write(table, form, file)
        return
    stream = sys.stdout.buffer
    if form == "parquet" and stream.isatty():
        raise ConfigError("Parquet is not for a terminal: add --output FILE, or pipe it into a program")
    _write(table, form, stream)
    stream.flush()


def _write(table: "pa.Table", form: str, stream: IO[bytes]) -> None:
    if form == "parquet":
        import pyarrow as pa

        from rhostream.loaders.storage import encode_table

        try:
            stream.write(encode_table(table))
        except pa.ArrowException as error:
            raise ConfigError(f"Parquet cannot hold this result ({error}): cast that column to VARCHAR") from error
    elif form == "csv":
        _write_csv(table, stream)
    elif form == "json":
        _write_json(table, stream)
    else:
        _write_text(table, stream)


def _write_json(table: "pa.Table", stream: IO[bytes]) -> None:
    stream.write(b"[")
    separator = b"\n"
    for batch in table.to_batches(max_chunksize=10_000):
        for row in _rows(batch):
            line = json.dumps(dict(zip(table.column_names, row, strict=True)), ensure_ascii=False, allow_nan=False)
            stream.write(separator + json_visible(line).encode())
            separator = b",\n"
    stream.write(b"\n]\n")


def _write_csv(table: "pa.Table", stream: IO[bytes]) -> None:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(map(csv_cell, table.column_names))
        for batch in table.to_batches(max_chunksize=10_000):
            writer.writerows([_csv_value(value) for value in row] for row in _rows(batch, keep_nan=True))
    finally:
        text.detach()


def _write_text(table: "pa.Table", stream: IO[bytes]) -> None:
    if table.column_names == ["explain_key", "explain_value"]:
        stream.writelines(f"{drawing}\n".encode() for drawing in table.column("explain_value").to_pylist())
        return
    rows = [row for batch in table.to_batches() for row in _rows(batch, keep_nan=True)]
    values = list(zip(*rows, strict=True)) or [()] * table.num_columns
    columns = [_column(field.type, cells) for field, cells in zip(table.schema, values, strict=True)]
    names = [_shown(name) for name in table.column_names]
    widths = [
        max(map(len, [name, *(line for cell in cells for line in cell)]))
        for name, cells in zip(names, columns, strict=True)
    ]
    right = [_is_number(field.type) for field in table.schema]

    def line(row: Sequence[str]) -> bytes:
        padded = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        )
        return ("  ".join(padded).rstrip() + "\n").encode()

    stream.write(line(names))
    stream.write(line(["-" * width for width in widths]))
    for row in zip(*columns, strict=True):
        stream.writelines(line(part) for part in zip_longest(*row, fillvalue=""))
    if not rows:
        stream.write(b"(no rows)\n")


def _column(kind: "pa.DataType", values: Sequence[Any]) -> list[list[str]]:
    """A column's cells, each as its lines: numbers in as many digits as tell them apart, what is nested is wrapped."""
    import pyarrow as pa

    if pa.types.is_floating(kind) or any(isinstance(value, float) for value in values):
        places = _decimals(values)
        return [[_text(value, "NULL") if value is None else _number(value, places)] for value in values]
    texts = [_shown(_text(value, "NULL")) for value in values]
    if pa.types.is_nested(kind):
        return [textwrap.wrap(text, WRAPPED, break_long_words=False, break_on_hyphens=False) or [""] for text in texts]
    return [[text] for text in texts]


def _decimals(values: Sequence[float | None]) -> int:
    """So many that the column's largest number has `DIGITS` significant digits."""
    largest = max((abs(value) for value in values if value and math.isfinite(value)), default=1.0)
    return max(0, DIGITS - 1 - math.floor(math.log10(largest)))


def _number(value: float, decimals: int) -> str:
    text = f"{value:.{min(decimals, 12)}f}"
    return text if math.isfinite(value) and len(text) < 18 and (float(text) or not value) else f"{value:.{DIGITS}g}"


def _is_number(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _rows(batch: "pa.RecordBatch", keep_nan: bool = False) -> Iterable[tuple[Any, ...]]:
    """The rows of a batch as JSON values (and NaN and infinities, if they are kept)."""
    import pyarrow as pa

    columns = []
    for column in batch.columns:
        if pa.types.is_float32(column.type):
            # Through text, so that 0.1 stays 0.1 and does not become 0.10000000149011612.
            values = [None if text is None else float(text) for text in column.cast(pa.string()).to_pylist()]
        else:
            try:
                values = column.to_pylist(maps_as_pydicts="lossy")
            except (OverflowError, TypeError, ValueError):  # what Python's own types cannot hold
                values = [_held(scalar) for scalar in column]
        columns.append([_plain(value, keep_nan) for value in values])
    return zip(*columns, strict=True)


def _held(scalar: "pa.Scalar[Any]") -> Any:
    """A value some of which has no like in Python: far and infinite dates as text, maps as lists of pairs."""
    import pyarrow as pa

    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.MapScalar):
        pairs = [(_held(pair["key"]), _held(pair["value"])) for pair in scalar.values or ()]
        nested = any(isinstance(key, (list, dict)) for key, _ in pairs)
        return [list(pair) for pair in pairs] if nested else dict(pairs)
    if isinstance(scalar, pa.StructScalar):
        return {name: _held(scalar[name]) for name in scalar}
    if isinstance(scalar, pa.ListScalar):  # of any size
        return [_held(item) for item in scalar.values or ()]
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        ends = {sign * (2**bits - 1): sign for sign in (1, -1) for bits in (31, 63)}
        sign = ends.get(getattr(scalar, "value", None))
        return {1: "infinity", -1: "-infinity"}[sign] if sign else str(scalar.cast(pa.string()))


def _plain(value: Any, keep_nan: bool) -> Any:
    """`value` in the types of JSON, which knows neither NaN nor infinity: null stands for them."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if keep_nan or math.isfinite(value) else None
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(key): _plain(item, False) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, False) for item in value]
    return str(value)


def _csv_value(value: Any) -> str:
    return csv_cell(value) if isinstance(value, str) else visible(_text(value, ""))


def _shown(cell: str) -> str:
    return visible(cell).replace("\n", "\\n").replace("\t", "\\t")


def _text(value: Any, null: str) -> str:
    if value is None:
        return null
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
