"""Columns of Arrow tables as NumPy arrays, and back.

Arrow's own conversions import pandas where it is installed, though nothing here needs it: a second and more, just
before the first super-batch.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def values(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """The values of a column; the array may be read-only. Nulls among numbers become NaN."""
    array = column.combine_chunks()
    if not array.null_count and (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        return np.from_dlpack(array)
    if not array.null_count and pa.types.is_boolean(array.type):
        return np.from_dlpack(array.cast(pa.uint8())).view(np.bool_)
    converted: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return converted


def as_arrow(positions: npt.NDArray[np.int64]) -> pa.Int64Array:
    """int64 (n,) as an Arrow array."""
    buffer = pa.py_buffer(np.ascontiguousarray(positions, np.int64))
    return pa.Array.from_buffers(pa.int64(), len(positions), [None, buffer])


def texts_as_arrow(texts: Sequence[str]) -> pa.StringArray:
    """Strings, of less than 2 GiB together, as an Arrow array."""
    encoded = [text.encode() for text in texts]
    ends = np.zeros(len(encoded) + 1, np.int32)
    np.cumsum([len(each) for each in encoded], out=ends[1:])
    return pa.Array.from_buffers(pa.string(), len(encoded), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))])


def distinct(array: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Equal values once.

    Returns:
        The position of the first of each, int64 (distinct,), ascending, and which of these each value equals, int64
        (n,).
    """
    which = array.dictionary_encode().indices.to_numpy().astype(np.int64)
    return np.unique(which, return_index=True)[1].astype(np.int64), which
