"""A workspace: a local folder or an fsspec URL in which every artifact has a relative name.

Every write goes to a temporary name, is synced and then renamed, so that a file either exists whole or not at all.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from rhostream.errors import ConfigError, WorkspaceError

TEMPORARY_SUFFIX = ".tmp"


class Workspace:
    """Reads and atomically writes files by their name relative to `location`.

    Args:
        location: a local folder, or a URL that fsspec understands (`s3://bucket/run`, `memory://run`).
    """

    def __init__(self, location: "str | os.PathLike[str] | Workspace") -> None:
        self.location: str = location.location if isinstance(location, Workspace) else os.fspath(location)
        try:
            filesystem, root = fsspec.core.url_to_fs(self.location)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"workspace {self.location!r}: {error}; install the fsspec package for it, or name a folder"
            ) from error
        self._filesystem: fsspec.AbstractFileSystem = filesystem
        self.root: str = root.rstrip("/") or "/"

    @property
    def is_local(self) -> bool:
        return isinstance(self._filesystem, LocalFileSystem)

    def path(self, name: str) -> str:
        """The absolute path (or the path inside the remote file system) of the artifact `name`."""
        return f"{self.root}/{name}" if name else self.root

    def exists(self, name: str) -> bool:
        if self.is_local:
            return Path(self.path(name)).exists()
        return bool(self._filesystem.exists(self.path(name)))

    def size(self, name: str) -> int:
        """Bytes of the file `name`; `FileNotFoundError` where there is none."""
        return int(self._filesystem.size(self.path(name)))

    def names(self, folder: str, suffix: str = "") -> list[str]:
        """Names (not paths) directly inside `folder` that end in `suffix`, sorted; empty where there is no folder."""
        try:
            found = self._filesystem.ls(self.path(folder), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = (str(path).rstrip("/").rsplit("/", 1)[-1] for path in found)
        return sorted(name for name in names if name.endswith(suffix) and not name.endswith(TEMPORARY_SUFFIX))

    def open(self, name: str) -> IO[bytes]:
        """Open for reading, seekable."""
        if self.is_local:
            return Path(self.path(name)).open("rb")
        handle: IO[bytes] = self._filesystem.open(self.path(name), "rb")
        return handle

    def read_bytes(self, name: str) -> bytes:
        with self.open(name) as stream:
            return stream.read()

    def read_json(self, name: str) -> Any:
        try:
            return json.loads(self.read_bytes(name))
        except ValueError as error:
            raise WorkspaceError(f"{self.path(name)} is not valid JSON ({error}): restore it or remake it") from error

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        # Arrow's threads must not hold Python's buffers: to release one while the interpreter ends aborts the process.
        threads = self.is_local
        try:
            with pa.OSFile(self.path(name)) if self.is_local else self.open(name) as stream:
                return pq.read_table(stream, columns=columns, use_threads=threads, pre_buffer=threads)
        except pa.ArrowInvalid as error:
            raise WorkspaceError(
                f"{self.path(name)} is not a readable Parquet file ({error}): delete it and run "
                "the command that made it again"
            ) from error

    def column_names(self, name: str) -> list[str]:
        """Of a Parquet file."""
        with self.open(name) as stream:
            return list(pq.read_schema(stream).names)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A binary file to fill, which takes its name only if the block ends without an error."""
        if not self.is_local:
            with tempfile.NamedTemporaryFile() as scratch:
                yield scratch
                scratch.flush()
                self._filesystem.put_file(scratch.name, self.path(name))  # object stores publish it as a whole
            return
        target_path = Path(self.path(name))
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
        _sync_folder(target_path.parent)

    def write_bytes(self, name: str, content: bytes) -> None:
        with self.writing(name) as stream:
            stream.write(content)

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())

    def write_table(self, name: str, table: pa.Table) -> None:
        with self.writing(name) as stream:
            pq.write_table(table, stream, compression="zstd")

    def remove(self, name: str) -> None:
        """Remove the file or folder `name`; nothing happens where there is none."""
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.rm(self.path(name), recursive=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
