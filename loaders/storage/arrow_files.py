"""Arrow streams of others: the only module that reads them, and that knows how a damaged one fails."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rhostream.loaders.storage.local_files import open_file
from rhostream.loaders.storage.unreadable import UnreadableError

if TYPE_CHECKING:
    import pyarrow as pa

Span = tuple[int, int]

_END: Final = b"\xff\xff\xff\xff\0\0\0\0"  # the last bytes of a stream that was closed


class ArrowStream:
    """A stream that is mapped into memory, of which no value is touched that nobody asks for.

    Attributes:
        schema: of its batches.
    """

    def __init__(self, reader: "pa.RecordBatchStreamReader", mapped: range) -> None:
        self.schema: pa.Schema = reader.schema
        self._reader, self._mapped = reader, mapped

    def batches(self) -> "Iterator[pa.RecordBatch]":
        """Its record batches, once, in order."""
        with _arrow_errors():
            for batch in self._reader:
                batch.validate()
                yield batch

    def spans(self, column: "pa.Array") -> list[Span | None]:
        """Where in the file the values of a binary or text column of a batch lie: offset and size, None for nulls.

        Raises:
            UnreadableError: the batch is compressed, or its offsets lead out of it.
        """
        import numpy as np
        import pyarrow as pa

        with _arrow_errors():
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                # The values need not be UTF-8, which is for whoever reads them to find.
                column = column.view(pa.binary() if pa.types.is_string(column.type) else pa.large_binary())
            column.validate(full=True)
            wide = pa.types.is_large_binary(column.type)
            _, ends, data = column.buffers()
            if data is None or not data.size:  # all of them are null or empty
                return [None if null else (0, 0) for null in column.is_null().to_pylist()]
            offsets = np.frombuffer(ends, np.int64 if wide else np.int32)[
                column.offset : column.offset + len(column) + 1
            ]
            start = data.address - self._mapped.start
            if not 0 <= start <= start + data.size <= len(self._mapped):
                raise UnreadableError("is compressed: save it as `save_to_disk` does, which does not compress")
            places, sizes = (start + offsets[:-1]).tolist(), np.diff(offsets).tolist()
            nulls = column.is_null().to_pylist()
        return [None if null else (place, size) for null, place, size in zip(nulls, places, sizes, strict=True)]


@contextlib.contextmanager
def opened_arrow(path: Path) -> Iterator[ArrowStream]:
    """An Arrow stream in a local file.

    Raises:
        FileNotFoundError: there is none.
        UnreadableError: it is damaged or cut short.
    """
    import pyarrow as pa

    with open_file(path) as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - len(_END)))
        if stream.read() != _END:
            raise UnreadableError("is no Arrow stream, or one that is cut short")
    with contextlib.ExitStack() as files:
        with _arrow_errors():
            mapped = files.enter_context(pa.memory_map(str(path)))
            begin = mapped.read_buffer(1).address
            mapped.seek(0)
            reader = files.enter_context(pa.ipc.open_stream(mapped))
        yield ArrowStream(reader, range(begin, begin + size))


@contextlib.contextmanager
def _arrow_errors() -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise UnreadableError(f"is a damaged Arrow stream ({error})") from error
