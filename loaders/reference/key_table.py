"""A memory-mapped table from key to irreducible loss, for shards and IL tables that were not made together."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rhostream.errors import IrreducibleLossError
from rhostream.loaders.storage import cache_folder

# 128 bits of the key: 64 to search by, 64 to be sure. 24 bytes a key on disk, of which a lookup touches a few pages.
_RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("il", "<f4"), ("predicted", "<i4")])
_LAYOUT = 2  # of the cached tables; another one makes them anew


class KeyTable:
    """Records sorted by the hash of their key, memory-mapped: memory does not grow with the table.

    It pickles as the file's path: every process of a machine maps the same one.

    Args:
        file: the sorted table, as `of_parquet` keeps it.

    Raises:
        IrreducibleLossError: it is not there any more.
    """

    def __init__(self, file: Path) -> None:
        self._file = file.absolute()
        try:
            self._records: npt.NDArray[Any] = np.load(file, mmap_mode="r")
        except FileNotFoundError as error:
            raise IrreducibleLossError(
                f"{file}, made of an IL table, has vanished: start again, and let the cache folder be while a run lasts"
            ) from error
        self._high = self._records["high"]

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return (type(self), (self._file,))

    @classmethod
    def of_parquet(cls, path: str) -> Self:
        """Build from a Parquet file or folder (local or fsspec URL), or open what an earlier call built of it.

        Rows that say `in_sample` are left out: theirs is no irreducible loss. The sorted table lies in the cache
        folder (`RHO_CACHE`, else ~/.cache/rhostream) and is remade when the source changes.

        Raises:
            IrreducibleLossError: no such file, no `key` or `il` column, or one key with two different losses.
        """
        filesystem, files = _files(path)
        cached = cache_folder() / "keytables" / f"{cls.stamp(path)[:32]}-{_LAYOUT}.npy"
        if not cached.exists():
            import pyarrow.dataset as ds  # here: it takes a second, mostly that of pandas, and is wanted once a table

            dataset = ds.dataset(files, filesystem=filesystem, format="parquet")
            missing = {"key", "il"} - set(dataset.schema.names)
            if missing:
                raise IrreducibleLossError(
                    f"IL table {path!r} has no column {sorted(missing)}, only "
                    f"{dataset.schema.names}: rename them to key and il"
                )
            columns = [name for name in ("key", "il", "predicted") if name in dataset.schema.names]
            in_sample = ds.field("in_sample") if "in_sample" in dataset.schema.names else ds.scalar(False)
            batches = dataset.to_batches(columns=columns, filter=in_sample.is_null() | ~in_sample)
            records = _sorted_records(batches, path)
            cached.parent.mkdir(parents=True, exist_ok=True)
            temporary = cached.with_suffix(f".{os.getpid()}.tmp")
            with temporary.open("wb") as stream:
                np.save(stream, records)
            temporary.replace(cached)
        return cls(cached)

    @staticmethod
    def stamp(path: str) -> str:
        """SHA-256 of the names, sizes and times of the source's files: changes when the source does."""
        filesystem, files = _files(path)
        stamps = "\n".join(f"{name} {filesystem.ukey(name)}" for name in files)
        return hashlib.sha256(stamps.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._records)

    def lookup(self, keys: list[str]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """il float32 (n,), NaN where the key is not there; predicted int32 (n,), -1 where unknown."""
        high, low = _hashes(keys)
        il = np.full(len(keys), np.nan, np.float32)
        predicted = np.full(len(keys), -1, np.int32)
        at = np.searchsorted(self._high, high)
        open_ones = np.flatnonzero(at < len(self._records))
        while len(open_ones):  # more than one turn only where two keys share 64 bits
            found = self._records[at[open_ones]]
            same_high = found["high"] == high[open_ones]
            hit = same_high & (found["low"] == low[open_ones])
            il[open_ones[hit]] = found["il"][hit]
            predicted[open_ones[hit]] = found["predicted"][hit]
            open_ones = open_ones[same_high & ~hit]
            at[open_ones] += 1
            open_ones = open_ones[at[open_ones] < len(self._records)]
        return il, predicted


def _files(path: str) -> tuple[fsspec.AbstractFileSystem, list[str]]:
    filesystem, root = fsspec.core.url_to_fs(path)
    if not filesystem.exists(root):
        raise IrreducibleLossError(f"IL table {path!r}: no such file or folder; give a Parquet with columns key, il")
    return filesystem, sorted(filesystem.find(root)) if filesystem.isdir(root) else [root]


def _sorted_records(batches: Iterable[pa.RecordBatch], path: str) -> npt.NDArray[Any]:
    parts = [np.empty(0, _RECORD)]
    for batch in batches:
        part = np.empty(batch.num_rows, _RECORD)
        part["high"], part["low"] = _hashes(batch.column("key").to_pylist())
        part["il"] = batch.column("il").to_numpy(zero_copy_only=False)
        has_class = "predicted" in batch.schema.names
        part["predicted"] = batch.column("predicted").fill_null(-1).to_numpy(zero_copy_only=False) if has_class else -1
        parts.append(part)
    records = np.concatenate(parts)
    records = records[np.lexsort((records["low"], records["high"]))]
    same = (records["high"][1:] == records["high"][:-1]) & (records["low"][1:] == records["low"][:-1])
    both_nan = np.isnan(records["il"][1:]) & np.isnan(records["il"][:-1])
    clash = same & (records["il"][1:] != records["il"][:-1]) & ~both_nan
    if clash.any():
        raise IrreducibleLossError(
            f"IL table {path!r}: {int(clash.sum())} keys stand there twice with different losses: "
            "keep the rows of one IL model"
        )
    return records[np.concatenate(([True], ~same))] if len(records) else records


def _hashes(keys: list[str]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=16).digest() for key in keys)
    pairs = np.frombuffer(digests, "<u8").reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
