"""A workspace: a local folder or an fsspec URL in which every artifact has a relative name.

A local write goes to a temporary name, is synced and then renamed; a remote one is put as a whole: so a file either
exists whole or not at all. What is remote is retried and bounded in time, see `remote`.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fsspec.implementations.local import LocalFileSystem

from rhostream.errors import WorkspaceError
from rhostream.loaders.storage import remote

if TYPE_CHECKING:
    import pyarrow as pa

TEMPORARY_SUFFIX = ".tmp"


class Workspace:
    """Reads and atomically writes files by their name relative to `location`.

    An absolute name (a local path that begins with "/", or a URL) stands for itself: so tars are indexed where they
    lie. All methods raise `FileNotFoundError` for what is not there, and for what is remote `WorkspaceError` where the
    store refuses access or keeps failing.

    Args:
        location: a local folder, or a URL that fsspec understands (`s3://bucket/run`, `memory://run`).

    Attributes:
        location: as given.
        root: its absolute path, or its URL.
    """

    def __init__(self, location: "str | os.PathLike[str] | Workspace") -> None:
        self.location: str = location.location if isinstance(location, Workspace) else os.fspath(location)
        if remote.is_remote(self.location):
            remote.filesystem(self.location)  # is it a URL that can be served?
            self.root = self.location.rstrip("/")
        else:
            self.root = _local(self.location)

    @property
    def is_local(self) -> bool:
        return not remote.is_remote(self.root)

    def path(self, name: str) -> str:
        """The absolute local path, or the URL, of the artifact `name`."""
        if name.startswith("/") or "://" in name:
            return name if remote.is_remote(name) else _local(name)
        return f"{self.root}/{name}" if name else self.root

    def exists(self, name: str) -> bool:
        path = self.path(name)
        return remote.exists(path) if remote.is_remote(path) else Path(path).exists()

    def size(self, name: str) -> int:
        """Bytes of the file `name`."""
        path = self.path(name)
        return remote.stat(path)[0] if remote.is_remote(path) else Path(path).stat().st_size

    def names(self, folder: str, suffix: str = "") -> list[str]:
        """Names (not paths) directly inside `folder` that end in `suffix`, sorted; empty where there is no folder."""
        path = self.path(folder)
        try:
            names = remote.names(path) if remote.is_remote(path) else [entry.name for entry in Path(path).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if name.endswith(suffix) and not name.endswith(TEMPORARY_SUFFIX))

    def open(self, name: str) -> IO[bytes]:
        """Open for reading, seekable."""
        path = self.path(name)
        return remote.open_file(path) if remote.is_remote(path) else Path(path).open("rb")

    def read_bytes(self, name: str) -> bytes:
        path = self.path(name)
        return remote.read(path) if remote.is_remote(path) else Path(path).read_bytes()

    def read_json(self, name: str) -> Any:
        try:
            return json.loads(self.read_bytes(name))
        except ValueError as error:
            raise WorkspaceError(f"{self.path(name)} is not valid JSON ({error}): restore it or remake it") from error

    def read_table(self, name: str, columns: list[str] | None = None, *, any_of: tuple[str, ...] = ()) -> "pa.Table":
        """A Parquet file, or these columns of it, in the file's order.

        Args:
            any_of: further columns, of which those are read that are there; one at least.

        Raises:
            WorkspaceError: it is no Parquet file, or lacks one of the columns.
        """
        import pyarrow as pa  # here, so that processes which only decode do not load it
        import pyarrow.parquet as pq

        path = self.path(name)
        try:
            # Not `pq.read_table`, which plans a data set first: three times the CPU time of a small file. No threads
            # of Arrow's: they cost more than they give, and one that releases a buffer of Python's while the
            # interpreter ends aborts the process.
            source = pa.BufferReader(remote.read(path)) if remote.is_remote(path) else pa.OSFile(path)
            with source, pq.ParquetFile(source) as file:
                table = file.read([*columns, *any_of] if columns else None, use_threads=False)
        except pa.ArrowInvalid as error:
            raise WorkspaceError(
                f"{path} is not a readable Parquet file ({error}): delete it and run the command that made it again"
            ) from error
        missing = sorted(set(columns or ()) - set(table.column_names))
        if missing := missing or ([" or ".join(any_of)] if any_of and not {*any_of} & {*table.column_names} else []):
            raise WorkspaceError(
                f"{path} has no column {', '.join(missing)} (it has {', '.join(file.schema_arrow.names)}): delete it "
                "and run the command that made it again"
            )
        return table

    def column_names(self, name: str) -> list[str]:
        """Of a Parquet file."""
        import pyarrow.parquet as pq

        with self.open(name) as stream:
            return list(pq.read_schema(stream).names)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A binary file to fill, which takes its name only if the block ends without an error."""
        path = self.path(name)
        if remote.is_remote(path):
            with tempfile.NamedTemporaryFile() as scratch:
                yield scratch
                scratch.flush()
                remote.put(Path(scratch.name), path)
            return
        target_path = Path(path)
        target_path.parent.mkdir(parents=True, exist_ok=True)
        # One fixed temporary name per artifact: what a killed writer left is overwritten by its successor.
        temporary = target_path.with_name(target_path.name + TEMPORARY_SUFFIX)
        try:
            with temporary.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        temporary.replace(target_path)
        sync_folder(target_path.parent)

    def write_bytes(self, name: str, content: bytes) -> None:
        with self.writing(name) as stream:
            stream.write(content)

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())

    def write_table(self, name: str, table: "pa.Table", row_group_rows: int | None = None) -> None:
        """Write Parquet, in row groups of at most so many rows (default: pyarrow's, 1M)."""
        import pyarrow.parquet as pq

        # A dictionary of values that hardly repeat, such as keys, makes a file larger and slower to read.
        repeating = [name for name in table.column_names if _repeats(table.column(name))]
        with self.writing(name) as stream:
            pq.write_table(table, stream, compression="zstd", use_dictionary=repeating, row_group_size=row_group_rows)

    def remove(self, name: str) -> None:
        """Remove the file or folder `name`; nothing happens where there is none."""
        path = self.path(name)
        if remote.is_remote(path):
            remote.remove(path)
        elif Path(path).is_dir() and not Path(path).is_symlink():
            shutil.rmtree(path)
        else:
            Path(path).unlink(missing_ok=True)


def _repeats(column: "pa.ChunkedArray") -> bool:
    """Does a value stand there twice, on average? True of types that are not counted."""
    import pyarrow as pa
    import pyarrow.compute as pc

    counted = (pa.types.is_string, pa.types.is_integer, pa.types.is_float32, pa.types.is_float64)
    if not any(is_of(column.type) for is_of in counted):
        return True
    distinct: int = pc.count_distinct(column, mode="all").as_py()
    return 2 * distinct <= len(column)


def _local(path: str) -> str:
    return str(LocalFileSystem._strip_protocol(path))


def sync_folder(folder: Path) -> None:
    """So that a file renamed in it has its new name after a power cut, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
