"""Columns of bytes taken out of Parquet files, so that any row can be read by itself.

A page of Parquet is decoded as a whole, and the units of `rho shards` read the rows of a corpus in seeded order. The
first process of a machine that needs a file writes its column once, row group by row group, to a file of bytes and
their places; whoever else needs it waits meanwhile. Files lie in `unpacked` of the cache's folder, under a name that is
a digest of what they were made from.
"""

import fcntl
import functools
import hashlib
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

import pyarrow as pa
import pyarrow.compute as pc

from rhostream.errors import CorpusError
from rhostream.loaders.storage import UnreadableError, cache_folder, opened_parquet, record_batches, whole_file

_ROWS_AT_ONCE: Final = 64
_PLACE: Final = struct.Struct("<qq")  # offset and size of a row; a size of -1 stands for null
_START: Final = struct.Struct("<q")  # at the file's end: where the places begin
_NULL: Final = -1
_MOST_OPEN: Final = 128  # files, of each process


class UnpackedColumn:
    """The bytes of one column of a Parquet file, row by row.

    Args:
        file: local, Parquet.
        leaf: the column, as Parquet names it: `image.bytes`.
    """

    def __init__(self, file: Path, leaf: str) -> None:
        self._file, self._leaf = file, leaf

    def value(self, row: int) -> bytes | None:
        """Of the row with this number, from 0; None for a null.

        Raises:
            CorpusError: the file is damaged or gone, or there is no room to unpack it.
        """
        stream, places = _opened(self._file, self._leaf)
        offset, size = _PLACE.unpack(os.pread(stream.fileno(), _PLACE.size, places + row * _PLACE.size))
        return None if size == _NULL else os.pread(stream.fileno(), size, offset)

    def remove(self) -> None:
        """Remove what has been unpacked; it is made anew where it is needed again."""
        _opened.cache_clear()
        with suppress(OSError):
            unpacked = _unpacked(self._file, self._leaf)
            for path in (unpacked, _lock_of(unpacked)):
                path.unlink(missing_ok=True)


@functools.lru_cache(maxsize=_MOST_OPEN)
def _opened(file: Path, leaf: str) -> tuple[IO[bytes], int]:
    """The unpacked column, open, and where in it the places begin."""
    try:
        unpacked = _unpacked(file, leaf)
        if not unpacked.exists():
            unpacked.parent.mkdir(parents=True, exist_ok=True)
            with _lock_of(unpacked).open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel drops it when its holder dies
                if not unpacked.exists():
                    _unpack(file, leaf, unpacked)
        stream = unpacked.open("rb")
        (places,) = _START.unpack(os.pread(stream.fileno(), _START.size, unpacked.stat().st_size - _START.size))
    except (FileNotFoundError, UnreadableError) as error:
        cause = error.cause if isinstance(error, UnreadableError) else "is not there any more"
        raise CorpusError(f"{file} {cause}: fetch or save the dataset again") from error
    except OSError as error:
        raise CorpusError(
            f"column {leaf} of {file} cannot be unpacked to {cache_folder() / 'unpacked'} ({error.strerror}): make "
            "room there, or let RHO_CACHE name another folder"
        ) from error
    return stream, places


def _unpack(file: Path, leaf: str, unpacked: Path) -> None:
    places, end = bytearray(), 0
    with whole_file(str(unpacked), unpacked.with_suffix(".part")) as stream:
        with opened_parquet(file) as table:
            for batch in record_batches(table, [leaf], _ROWS_AT_ONCE):
                column = batch.column(0)
                values = pc.struct_field(column, 0) if pa.types.is_struct(column.type) else column
                for value in values:
                    data = value.as_buffer()
                    places += _PLACE.pack(end, _NULL if data is None else data.size)
                    if data is not None:
                        stream.write(data)
                        end += data.size
        stream.write(places)
        stream.write(_START.pack(end))


def _unpacked(file: Path, leaf: str) -> Path:
    status = file.stat()
    made_from = f"{file.resolve()} {status.st_size} {status.st_mtime_ns} {leaf}"
    return cache_folder() / "unpacked" / hashlib.sha256(made_from.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _lock_of(unpacked: Path) -> Path:
    return unpacked.with_suffix(".lock")
