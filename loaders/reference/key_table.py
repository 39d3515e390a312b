"""A memory-mapped table from key to irreducible loss, for shards and IL tables that were not made together."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from rhostream.errors import ConfigError, IrreducibleLossError
from rhostream.loaders.storage import UnreadableError, cache_folder, opened_parquet, parquet_errors, remote

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
        records = _mapped(file)
        if records is None:
            raise IrreducibleLossError(
                f"{file}, made of an IL table, has vanished or was damaged: start again, and let the cache folder be "
                "while a run lasts"
            )
        self._records = records
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
        cached = cache_folder() / "keytables" / f"{cls.stamp(path)[:32]}-{_LAYOUT}.npy"
        if _mapped(cached) is None:
            filesystem, files = _files(path)
            try:
                records = _sorted_records(_batches(filesystem, files), path)
            except UnreadableError as error:
                remedy = error.remedy or "give Parquet with the columns key (text) and il (numbers)"
                raise IrreducibleLossError(f"IL table {path!r} {error.cause}: {remedy}") from error
            _write(cached, records)
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


def _mapped(file: Path) -> npt.NDArray[Any] | None:
    """The records of a cached table; None where it is not there, or is damaged and has to be made anew."""
    try:
        records: npt.NDArray[Any] = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return records if records.dtype == _RECORD and records.ndim == 1 else None


def _write(file: Path, records: npt.NDArray[Any]) -> None:
    """As a whole, so that another process never maps half of it."""
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            np.save(stream, records)
        temporary.replace(file)
    except OSError as error:
        raise ConfigError(
            f"{file.parent} cannot hold the IL table's keys ({error.strerror}): name a folder for them with RHO_CACHE"
        ) from error


def _files(path: str) -> tuple[fsspec.AbstractFileSystem, list[str]]:
    filesystem, root = remote.filesystem(path) if remote.is_remote(path) else fsspec.core.url_to_fs(path)
    try:
        if not filesystem.exists(root):
            raise IrreducibleLossError(
                f"IL table {path!r}: no such file or folder; give a Parquet with columns key, il"
            )
        files = sorted(filesystem.find(root)) if filesystem.isdir(root) else [root]
    except (OSError, ValueError) as error:
        raise IrreducibleLossError(f"IL table {path!r} cannot be read ({error}): give a Parquet file") from error
    if not files:
        raise IrreducibleLossError(f"IL table {path!r}: the folder is empty; give Parquet with columns key, il")
    return filesystem, files


def _batches(filesystem: fsspec.AbstractFileSystem, files: list[str]) -> Iterator[pa.RecordBatch]:
    """Key, il and maybe predicted of all rows that are not in-sample.

    Raises:
        UnreadableError: a file is no Parquet, or a column is missing, or of a type that it cannot be.
    """
    import pyarrow.dataset as ds  # here: it takes a second, mostly that of pandas, and is wanted once a table

    if isinstance(filesystem, LocalFileSystem):
        for file in files:
            with opened_parquet(Path(file)):  # compares the seal; a pipe would be waited for below
                continue
    verified = ds.ParquetFileFormat(
        default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    )
    with parquet_errors():
        dataset = ds.dataset(files, filesystem=filesystem, format=verified)
        columns = _kinds(dataset.schema)
        in_sample = ds.field("in_sample") if "in_sample" in dataset.schema.names else ds.scalar(False)
        found = dataset.to_batches(columns=list(columns), filter=in_sample.is_null() | ~in_sample)
        for batch in found:
            if nulls := batch.column("key").null_count:
                raise UnreadableError(f"has {nulls} nulls in column key")
            yield batch.cast(pa.schema(columns))


def _kinds(schema: pa.Schema) -> dict[str, pa.DataType]:
    """The columns to read, and the types to read them in.

    Raises:
        UnreadableError: one is missing, or of a type that cannot become the one that is needed.
    """
    if missing := sorted({"key", "il"} - set(schema.names)):
        raise UnreadableError(f"has no column {missing}, only {schema.names}", remedy="rename them to key and il")
    wanted = {"key": pa.string(), "il": pa.float64(), "predicted": pa.int32()}
    is_kind = {
        "key": _is_text,
        "il": lambda kind: pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind),
        "predicted": pa.types.is_integer,
        "in_sample": pa.types.is_boolean,
    }
    for name, fits in is_kind.items():
        if name in schema.names and not fits(kind := schema.field(name).type):
            raise UnreadableError(f"has column {name} of type {kind}")
    return {name: kind for name, kind in wanted.items() if name in schema.names}


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


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
