"""Rows of one hash brought together, whatever their number: in memory while they are few, else by files on disk."""

import itertools
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from rhostream.pipeline.shards.scratch import Scratch

#: The column that rows are brought together by, uint64.
HASH: Final = "hash"

_MOST_BYTES = 64 << 20  # of rows in memory
_BITS: Final = 6  # of the hash that tell one file from another: so many files are open at a time


def bring_together(tables: Iterable[pa.Table], scratch: Scratch, *, depth: int = 0) -> Iterator[pa.Table]:
    """The rows of all tables in tables of some 64 MB: all rows of one hash stand in one of them, in their order.

    Every hash of a table is below those of the next one.

    Args:
        tables: of one schema, with a column `hash`.
        scratch: for files that are gone again when the last table was given.
    """
    few: list[pa.Table] = []
    size, rest = 0, iter(tables)
    for table in rest:
        few.append(table)
        size += table.nbytes
        if size > _MOST_BYTES and (depth + 1) * _BITS <= 64:
            break
    else:
        if few:
            yield pa.concat_tables(few).combine_chunks()
        return
    folder = scratch.folder()
    for file in _shared_out(itertools.chain(_taken(few), rest), folder, depth):
        yield from bring_together(_tables(file), scratch, depth=depth + 1)
        file.unlink()
    shutil.rmtree(folder)


def _taken(tables: list[pa.Table]) -> Iterator[pa.Table]:
    while tables:
        yield tables.pop(0)


def _shared_out(tables: Iterable[pa.Table], folder: Path, depth: int) -> list[Path]:
    """One file for each value of the hash's next bits, in their order."""
    shift, last = np.uint64(64 - _BITS * (depth + 1)), np.uint64((1 << _BITS) - 1)
    writers: dict[int, pa.RecordBatchWriter] = {}
    files = [folder / f"{number:02x}" for number in range(1 << _BITS)]
    try:
        for table in tables:
            buckets = (table.column(HASH).to_numpy() >> shift) & last
            order = np.argsort(buckets, kind="stable")
            rows = table.take(pa.array(order))
            bounds = np.searchsorted(buckets[order], np.arange((1 << _BITS) + 1, dtype=np.uint64))
            for number, (start, stop) in enumerate(itertools.pairwise(bounds.tolist())):
                if start == stop:
                    continue
                if number not in writers:
                    writers[number] = pa.ipc.new_stream(
                        files[number], table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")
                    )
                writers[number].write_table(rows.slice(start, stop - start))
    finally:
        for writer in writers.values():
            writer.close()
    return [files[number] for number in sorted(writers)]


def _tables(file: Path) -> Iterator[pa.Table]:
    with pa.OSFile(str(file)) as stream, pa.ipc.open_stream(stream) as batches:
        for batch in batches:
            yield pa.Table.from_batches([batch])
