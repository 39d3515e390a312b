"""Parquet: the only module that reads it, and that knows how a damaged one fails.

What we write is sealed. Between the last column and the footer, where no reader looks, lie a mark and the SHA-256 of
all other bytes: every flipped bit is noticed when the file is read here, be it in values, statistics or the footer,
and DuckDB and pandas read the file as ever. Files of others and of former releases have no seal; of these the
checksums of the pages are compared, where there are any.
"""

import contextlib
import hashlib
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rhostream.loaders.storage.local_files import open_file
from rhostream.loaders.storage.unreadable import UnreadableError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_FEW: Final = 100  # rows
_MARK: Final = b"RHOSEAL1"
_HALF: Final = len(_MARK) // 2  # of the mark, which tells it where the other half was damaged or cut off
_SEAL_BYTES: Final = len(_MARK) + hashlib.sha256().digest_size
_LARGEST_FOOTER: Final = 16 << 20  # bytes, in which the mark of a damaged file is looked for
_NAME_KEY: Final = b"rhostream.file"  # of the metadata
_END: Final = 8  # bytes: the footer's length, and "PAR1"


def encode_table(table: "pa.Table", row_group_rows: int | None = None, *, name: str = "") -> bytes:
    """A sealed Parquet file, zstd, in row groups of at most so many rows (default: pyarrow's, 1M).

    Args:
        name: that the file will have; its metadata tells it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq  # here, so that processes which only decode do not load it

    if name:
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _NAME_KEY: name.encode()})

    # A dictionary of values that hardly repeat, such as keys, makes a file larger and slower to read, and so
    # does any in a file of a few rows.
    many = table.num_rows > _FEW
    repeating = [name for name in table.column_names if _repeats(table.column(name))] if many else False
    buffer = pa.BufferOutputStream()
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        use_dictionary=repeating,
        row_group_size=row_group_rows,
        write_page_checksum=True,
    )
    content = buffer.getvalue().to_pybytes()
    footer = _footer_start(content)
    return b"".join((content[:footer], _MARK, hashlib.sha256(content).digest(), content[footer:]))


def decode_table(
    content: bytes,
    columns: Sequence[str] | None = None,
    schema: "pa.Schema | None" = None,
    optional: Sequence[str] = (),
) -> "pa.Table":
    """The table, or these columns of it, in the file's order.

    Args:
        columns: None for all; of a table that is read as a whole the schema's must be there.
        optional: further columns, read where they are there.
        schema: what is promised of the columns that it names: their types, and where there are no nulls.

    Raises:
        UnreadableError: a broken seal, no Parquet file, a missing column, or one that is not as promised.
    """
    with opened_parquet(content) as file:
        # No threads of Arrow's: they cost more than they give, and one that releases a buffer of Python's while the
        # interpreter ends aborts the process.
        table = file.read(None if columns is None else [*columns, *optional], use_threads=False)
        wanted = schema.names if columns is None and schema is not None else columns or ()
        there = table.column_names
        if any(there.count(name) != 1 for name in wanted):
            _require_columns(file.schema_arrow, wanted)
    if schema is not None:
        _require_promised(table, schema)
    return table.replace_schema_metadata(_without_name(table.schema.metadata))


def parquet_schema(content: bytes, schema: "pa.Schema", name: str) -> "pa.Schema":
    """Types and metadata of a Parquet file, checked as `check_table` does."""
    check_table(content, schema, name)
    with opened_parquet(content) as file:
        return file.schema_arrow.with_metadata(_without_name(file.schema_arrow.metadata))


def check_table(content: bytes, schema: "pa.Schema", name: str, owner: str | None = None) -> set[str]:
    """Verify a Parquet file without reading its columns.

    Args:
        schema: columns without nulls are there and, as the footer tells, hold none; all are of their type. A former
            release, whose files do not tell their name, may not have known the others.
        name: of the file, which is the one that it was written under.
        owner: a text column, of which the footer tells the least and the greatest value of each row group.

    Returns:
        These values; none where the file tells none.

    Raises:
        UnreadableError: the seal is broken, or the file is not as it should be.
    """
    with opened_parquet(content, schema) as file:
        there = file.schema_arrow
        written = (there.metadata or {}).get(_NAME_KEY)
        if written is not None and (told := written.decode(errors="replace")) != name:
            raise UnreadableError(f"was written as {told}: another file has been put in its place")
        promised = [field.name for field in schema if not field.nullable]
        _require_columns(there, promised if written is None else schema.names)
        owners = set()
        for group in range(file.metadata.num_row_groups):
            columns = file.metadata.row_group(group)
            for column in map(columns.column, range(columns.num_columns)):
                found = column.statistics
                if found is None:
                    continue
                if column.path_in_schema in promised and found.null_count:
                    raise UnreadableError(f"has {found.null_count} nulls in column {column.path_in_schema}")
                if column.path_in_schema == owner and found.has_min_max:
                    owners |= {found.min, found.max}
        return owners


@contextlib.contextmanager
def opened_parquet(source: bytes | Path, schema: "pa.Schema | None" = None) -> Iterator["pq.ParquetFile"]:
    """A Parquet file; what it raises inside the block becomes an UnreadableError.

    Args:
        source: what a file holds, or the path of one that may be large.
        schema: types of those of its columns that it names.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    unsealed: int | None = 0
    if isinstance(source, bytes):
        unsealed = _compare_seal(source)
    else:
        with open_file(source) as stream:
            if os.fstat(stream.fileno()).st_size:
                with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    unsealed = _compare_seal(content)
    with parquet_errors():
        reader = pa.BufferReader(source) if isinstance(source, bytes) else pa.OSFile(str(source))
        # Not `pq.read_table`, which plans a data set first: three times the CPU time of a small file.
        with reader, pq.ParquetFile(reader, page_checksum_verification=True) as file:
            if unsealed is not None:
                _require_uncut(file, unsealed)
            if schema is not None:
                _require_types(file.schema_arrow, schema)
            yield file


def record_batches(file: "pq.ParquetFile", columns: Sequence[str], rows: int) -> "Iterator[pa.RecordBatch]":
    """Batches of at most so many rows, in the memory of one row group.

    Args:
        columns: as Parquet names them: "image.bytes" is a part of a struct.
    """
    for group in range(file.num_row_groups):  # pyarrow buffers what is asked for of all groups that it is asked for
        yield from file.iter_batches(rows, row_groups=[group], columns=list(columns), use_threads=False)


@contextlib.contextmanager
def parquet_errors() -> Iterator[None]:
    """Whatever pyarrow raises of a damaged file, as an UnreadableError."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise UnreadableError(f"is no Parquet file, or a damaged one ({error})") from error


def _without_name(metadata: "dict[bytes, bytes] | None") -> "dict[bytes, bytes] | None":
    return {key: value for key, value in (metadata or {}).items() if key != _NAME_KEY} or None


def _footer_start(content: "bytes | mmap.mmap") -> int:
    """Where the footer begins; negative or beyond the end in a damaged file."""
    return len(content) - _END - int.from_bytes(content[-_END:-4], "little")


def _compare_seal(content: "bytes | mmap.mmap") -> int | None:
    """Where the footer of a file without a seal begins; None of one that is sealed, and as it was then.

    Raises:
        UnreadableError: it is not as it was then.
    """
    footer = _footer_start(content)
    at = footer - _SEAL_BYTES
    if at < 0 or content[at : at + len(_MARK)] != _MARK:
        # The mark elsewhere, or half of it here: the file was sealed, and something else has become of it since.
        first, second = content[max(at, 0) : at + _HALF], content[max(at + _HALF, 0) : at + len(_MARK)]
        half = first == _MARK[:_HALF] or second == _MARK[_HALF:]
        if half or content.find(_MARK, max(0, len(content) - _LARGEST_FOOTER)) >= 0:
            raise UnreadableError("was damaged after it was written (it does not end as it did)")
        return footer
    with memoryview(content) as view, view[:at] as body, view[footer:] as end:
        digest = hashlib.sha256(body)
        digest.update(end)
    if digest.digest() != content[at + len(_MARK) : footer]:
        raise UnreadableError("was damaged or changed after it was written (its seal is broken)")
    return None


def _require_uncut(file: "pq.ParquetFile", footer: int) -> None:
    """Was a file without a seal, if one of ours, written again by another tool, or was its seal cut out?

    Another tool leaves nothing between the last column and the footer (but for indexes of pages, which we write none
    of). Of a cut as long as the seal, the checksums of the pages tell whether it took anything else.
    """
    if _NAME_KEY not in (file.metadata.metadata or {}) or not file.num_row_groups:
        return
    last = file.metadata.row_group(file.num_row_groups - 1)
    columns = [last.column(number) for number in range(last.num_columns)]
    if any(column.has_column_index or column.has_offset_index for column in columns):
        return
    starts = [
        column.data_page_offset if column.dictionary_page_offset is None else column.dictionary_page_offset
        for column in columns
    ]
    ends = [start + column.total_compressed_size for start, column in zip(starts, columns, strict=True)]
    if max(ends, default=footer) != footer:
        raise UnreadableError("was damaged after it was written (its seal is cut)")
    for group in range(file.num_row_groups):
        file.read_row_group(group, use_threads=False)


def _require_columns(found: "pa.Schema", wanted: Sequence[str]) -> None:
    names = found.names  # made anew each time that it is asked for, as all of a schema
    if missing := sorted(set(wanted) - set(names)):
        raise UnreadableError(f"has no column {', '.join(missing)} (it has {', '.join(names)})")
    if twice := sorted({name for name in wanted if names.count(name) > 1}):
        raise UnreadableError(f"has column {twice[0]} twice")


def _require_types(found: "pa.Schema", promised: "pa.Schema") -> None:
    for name, kind in zip(found.names, found.types, strict=True):
        at = promised.get_field_index(name)
        if at >= 0 and kind != promised.field(at).type:
            raise UnreadableError(f"has column {name} of type {kind}, which is {promised.field(at).type}")


def _require_promised(table: "pa.Table", promised: "pa.Schema") -> None:
    _require_types(table.schema, promised)
    for name, column in zip(table.column_names, table.itercolumns(), strict=True):
        at = promised.get_field_index(name)
        if at >= 0 and column.null_count and not promised.field(at).nullable:
            raise UnreadableError(f"has {column.null_count} nulls in column {name}, which has none")


def _repeats(column: "pa.ChunkedArray") -> bool:
    """Does a value stand there twice, on average? True of types that are not counted."""
    import pyarrow as pa
    import pyarrow.compute as pc

    counted = (pa.types.is_string, pa.types.is_integer, pa.types.is_float32, pa.types.is_float64)
    if not any(is_of(column.type) for is_of in counted):
        return True
    distinct: int = pc.count_distinct(column, mode="all").as_py()
    return 2 * distinct <= len(column)
