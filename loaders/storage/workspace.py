"""A workspace: a local folder or an fsspec URL in which every artifact has a relative name.

A local write goes to a temporary name, is synced and then renamed; a remote one is put as a whole: so a file either
exists whole or not at all. What is remote is retried and bounded in time, see `remote`.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from fsspec.implementations.local import LocalFileSystem

from rhostream.errors import WorkspaceError
from rhostream.loaders.storage import remote
from rhostream.loaders.storage.json_files import decode_card, decode_lines, encode_card, encode_lines
from rhostream.loaders.storage.local_files import open_file, read_file
from rhostream.loaders.storage.parquet_files import (
    check_table,
    decode_table,
    encode_table,
    opened_parquet,
    parquet_schema,
)
from rhostream.loaders.storage.remakes import remake
from rhostream.loaders.storage.shapes import shaped
from rhostream.loaders.storage.tensor_files import decode_safetensors
from rhostream.loaders.storage.unreadable import UnreadableError
from rhostream.loaders.storage.whole_files import whole_file

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

TEMPORARY_SUFFIX = ".tmp"

_apart = ""  # what temporary names of this process have that those of others have not


def write_apart(name: str) -> None:
    """Give this process temporary names of its own: others, on other machines, may be writing the same files.

    Args:
        name: 12 hexadecimal digits; "" for the usual names again.
    """
    global _apart
    _apart = name and f".{name}"


def temporary_of(name: str) -> str:
    """The name of the file that such a temporary one was to become; "" where `name` is that of no temporary file."""
    return re.sub(r"(\.[0-9a-f]{12})?\.tmp\Z", "", name) if name.endswith(TEMPORARY_SUFFIX) else ""


T = TypeVar("T")


class Workspace:
    """Reads and atomically writes files by their name relative to `location`.

    An absolute name (a local path that begins with "/", or a URL) stands for itself: so tars are indexed where they
    lie. All methods raise `FileNotFoundError` for what is not there, and `WorkspaceError` for what cannot be read, is
    damaged or is not what they read, and for what is remote where the store refuses access or keeps failing.

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
        return remote.exists(path) if remote.is_remote(path) else os.path.exists(path)  # noqa: PTH110 - False for a name too long

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
        except OSError as error:
            raise WorkspaceError(f"{path} cannot be listed ({error.strerror}): give this user access to it") from error
        return sorted(name for name in names if name.endswith(suffix) and not name.endswith(TEMPORARY_SUFFIX))

    def open(self, name: str) -> IO[bytes]:
        """Open for reading, seekable."""
        with self.reading(name):
            path = self.path(name)
            return remote.open_file(path) if remote.is_remote(path) else open_file(path)

    def read_bytes(self, name: str) -> bytes:
        with self.reading(name):
            return self._content(name)

    def read_json(self, name: str, **kinds: Any) -> Any:
        """What a JSON card holds, without its seal.

        Args:
            kinds: types of some of its entries, where they are there, as `isinstance` takes them; given any, the card
                is an object.
        """
        with self.reading(name):
            value = decode_card(self._content(name))
            if kinds and not isinstance(value, dict):
                raise UnreadableError("holds no JSON object")
            for entry, kind in kinds.items():
                if entry in value and not isinstance(value[entry], kind):
                    raise UnreadableError(f"has {entry} {str(value[entry])[:60]!r}, which is no {kind}")
            return value

    def read_record(self, name: str, kind: type[T], *, value: Any = None) -> T:
        """A JSON card as the dataclass that it was written from, see `shapes.shaped`.

        Args:
            value: what the card holds, where it was read already.
        """
        with self.reading(name):
            return shaped(decode_card(self._content(name)) if value is None else value, kind)

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """The objects of JSON lines, without their seals; of no line there is no file."""
        with self.reading(name):
            return decode_lines(self._content(name))

    def read_table(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        schema: "pa.Schema | None" = None,
        optional: Sequence[str] = (),
    ) -> "pa.Table":
        """A Parquet file, or some columns of it, in the file's order; see `parquet_files.decode_table`."""
        with self.reading(name):
            return decode_table(self._content(name), columns, schema, optional)

    def read_schema(self, name: str, schema: "pa.Schema") -> "pa.Schema":
        """Types and metadata of a Parquet file, which is verified as a whole, see `parquet_files.check_table`."""
        with self.reading(name):
            return parquet_schema(self._content(name), schema, name.rpartition("/")[2])

    @contextlib.contextmanager
    def opened_table(self, name: str, schema: "pa.Schema") -> "Iterator[pq.ParquetFile]":
        """A Parquet file to read by row groups, verified as a whole, its columns of the types that the schema names.

        Whatever is found wrong inside the block, or raised by pyarrow, is a WorkspaceError.
        """
        path = self.path(name)
        with self.reading(name):
            source = remote.read(path) if remote.is_remote(path) else Path(path)
            with opened_parquet(source, schema) as file:
                yield file

    def count_rows(self, name: str) -> int:
        """Of a Parquet file, which is verified as a whole."""
        path = self.path(name)
        source = remote.read(path) if remote.is_remote(path) else Path(path)
        with self.reading(name), opened_parquet(source) as file:
            return int(file.metadata.num_rows)

    def check_table(self, name: str, schema: "pa.Schema", owner: str | None = None) -> set[str]:
        """Verify a Parquet file as a whole without reading its columns, see `parquet_files.check_table`."""
        with self.reading(name):
            return check_table(self._content(name), schema, name.rpartition("/")[2], owner)

    def read_safetensors(self, name: str) -> "dict[str, torch.Tensor]":
        """Tensors by name, on the CPU."""
        with self.reading(name):
            return decode_safetensors(self._content(name))

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """What is found wrong with the artifact `name` inside the block, as a WorkspaceError that says what to do."""
        try:
            yield
        except UnreadableError as error:
            message = f"{self.path(name)} {error.cause}"
            if error.remedy:
                raise WorkspaceError(f"{message}: {error.remedy}") from error
            remedy = remake(self.location, name, in_place=self.exists("scans"))
            if remedy is None:
                raise WorkspaceError(f"{message}: restore it") from error
            raise WorkspaceError(f"{message}: restore it, or", remedy) from error

    def _content(self, name: str) -> bytes:
        path = self.path(name)
        return remote.read(path) if remote.is_remote(path) else read_file(path)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A binary file to fill, which takes its name only if the block ends without an error.

        Raises:
            WorkspaceError: the name is a folder's, or lies in what is none.
        """
        path = self.path(name)
        target = Path(path)
        if not remote.is_remote(path):
            if target.is_dir():
                raise WorkspaceError(f"{path} is a folder, in the place of a file of ours: move it out of the way")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise WorkspaceError(f"{target.parent} is no folder: move what is there out of the way") from error
        with whole_file(path, target.with_name(f"{target.name}{_apart}{TEMPORARY_SUFFIX}")) as stream:
            yield stream

    def write_bytes(self, name: str, content: bytes) -> None:
        with self.writing(name) as stream:
            stream.write(content)

    def write_json(self, name: str, value: Any) -> None:
        """Write a card; an object is sealed, see `json_files`."""
        self.write_bytes(name, encode_card(value))

    def write_lines(self, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write JSON lines, each of them sealed; without one, remove the file, so that an emptied one is noticed."""
        if content := encode_lines(lines):
            self.write_bytes(name, content)
        else:
            self.remove(name)

    def write_table(self, name: str, table: "pa.Table", row_group_rows: int | None = None) -> None:
        """Write sealed Parquet, in row groups of at most so many rows (default: pyarrow's, 1M)."""
        self.write_bytes(name, encode_table(table, row_group_rows, name=name.rpartition("/")[2]))

    def remove(self, name: str) -> None:
        """Remove the file or folder `name`; nothing happens where there is none."""
        path = self.path(name)
        if remote.is_remote(path):
            remote.remove(path)
        elif Path(path).is_dir() and not Path(path).is_symlink():
            shutil.rmtree(path)
        else:
            Path(path).unlink(missing_ok=True)


def _local(path: str) -> str:
    return str(LocalFileSystem._strip_protocol(path))
