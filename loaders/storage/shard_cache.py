"""Copies of remote tars in a local folder of bounded size, shared by all processes of a machine.

A copy is named for its URL and for the identity (ETag, time) of what it copies, so a rewritten tar is fetched anew.
While it is fetched it is called `<name>.part` and locked (flock): other processes wait for it; when the fetcher dies
the kernel drops the lock, and whoever comes next starts over. It is renamed when it is whole. The copies that were
opened longest ago are removed to make room; a process that has one open can read it to the end.
"""

import errno
import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from rhostream.errors import ConfigError, WorkspaceError
from rhostream.loaders.storage import remote
from rhostream.loaders.storage.cache_root import cache_folder
from rhostream.loaders.storage.retries import RETRIES

LIMIT_VARIABLE = "RHO_CACHE_GB"
PIECE_BYTES = 16 << 20

_POLL_SECONDS = 0.05
#: A fetcher that has written nothing for so long (it is stopped, or on another machine) is not waited for.
_PATIENCE_SECONDS = RETRIES.seconds + RETRIES.limit(PIECE_BYTES)

_log = logging.getLogger(__name__)
_told = threading.Event()


class CacheUnavailableError(Exception):
    """No local copy can be kept of this file: the disk is full, the folder not writable, or the bound too small."""


class ShardCache:
    """Local copies of remote files.

    Args:
        folder: by default `shards` in `cache_folder()` (`RHO_CACHE`, else ~/.cache/rhostream).
        limit: bytes; None takes `RHO_CACHE_GB` (in 10^9 bytes; 0 keeps no copies), else half of what the disk could
            give to the cache. What is being fetched counts; what was removed while a process has it open does not.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        self.folder = folder or cache_folder() / "shards"
        self.limit = limit if limit is not None else _limit_of_environment()

    def open(self, url: str) -> IO[bytes]:
        """The local copy of `url`, fetched where there is none.

        Raises:
            FileNotFoundError: there is no such object.
            WorkspaceError: the store refuses, keeps failing, or the object was rewritten while it was read.
            CacheUnavailableError: no copy can be kept; read the URL itself.
        """
        if self.limit == 0:
            raise CacheUnavailableError(f"{LIMIT_VARIABLE} is 0")
        size, identity = remote.stat(url)
        copy = self._copy(url, identity)
        for _ in range(3):  # it may be removed again before it is opened, where the bound is small
            with _disk(self.folder):
                stream = _opened(copy, size)
            if stream is not None:
                return stream
            self._fetch(url, size, identity, copy)
        raise CacheUnavailableError(f"{self.folder} is too small: copies are removed before they are read")

    def remove(self, url: str, stream: IO[bytes]) -> None:
        """Remove the copy of `url` if it is still the one that was opened as `stream`: it is damaged."""
        copy = self._copy(url, remote.stat(url)[1])
        with suppress(OSError), self._exclusively():
            if os.path.samestat(os.fstat(stream.fileno()), copy.stat()):
                copy.unlink()

    def _copy(self, url: str, identity: str) -> Path:
        name = hashlib.sha256(f"{url} {identity}".encode()).hexdigest()[:32]
        return self.folder / f"{name}.tar"

    def _fetch(self, url: str, size: int, identity: str, copy: Path) -> None:
        part = copy.with_suffix(".part")
        with _disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = _locked(part, copy)
        if descriptor is None:
            return
        try:
            with _disk(self.folder):
                self._make_room(descriptor, part, size)
            for start in range(0, size, PIECE_BYTES):
                data = remote.read_range(url, start, min(start + PIECE_BYTES, size))
                with _disk(self.folder):
                    _write(descriptor, data, start)
            if remote.stat(url) != (size, identity):
                raise WorkspaceError(f"{url} was rewritten while it was read: wait for its writer, then run again")
            with _disk(self.folder):
                os.fsync(descriptor)
                with self._exclusively():  # or somebody who counts the bytes might see neither name
                    part.rename(copy)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        finally:
            os.close(descriptor)

    def _make_room(self, descriptor: int, part: Path, size: int) -> None:
        """Give `size` bytes to the file that is to be fetched, and remove old copies for them."""
        os.ftruncate(descriptor, 0)  # a killed fetcher's
        with self._exclusively():
            _remove_abandoned(self.folder, part)
            copies, held = _contents(self.folder)
            limit = self.limit if self.limit is not None else (_free(self.folder) + held) // 2
            if size > limit:
                raise CacheUnavailableError(
                    f"a shard of {size} bytes exceeds the cache's bound of {limit} bytes: raise {LIMIT_VARIABLE}"
                )
            copies, removed = _remove_oldest(copies, held + size - limit)
            if held - removed + size > limit:
                raise CacheUnavailableError(
                    f"{held - removed} bytes are being fetched, the cache's bound is {limit} bytes: raise "
                    f"{LIMIT_VARIABLE}"
                )
            try:
                _reserve(descriptor, size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                _remove_oldest(copies, size)  # no more than that: it helps little where the disk is full of others'
                _reserve(descriptor, size)

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Against all other processes and threads that make room or finish a copy."""
        lock = _locked(self.folder / ".lock")
        try:
            yield
        finally:
            if lock is not None:
                os.close(lock)


def tell_once(error: CacheUnavailableError) -> None:
    """Log that images are read over the network one by one; once a process."""
    if not _told.is_set():
        _told.set()
        _log.warning("some remote shards are read without a local copy, image by image, which is slow: %s", error)


def _limit_of_environment() -> int | None:
    value = os.environ.get(LIMIT_VARIABLE)
    if not value:
        return None
    try:
        limit = float(value)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise ConfigError(
            f"{LIMIT_VARIABLE}={value!r}: give the bound of the shard cache as a number of GB, 0 for none"
        )
    return int(limit * 1e9)


def _opened(copy: Path, size: int) -> IO[bytes] | None:
    try:
        stream = copy.open("rb")
    except FileNotFoundError:
        return None
    if os.fstat(stream.fileno()).st_size != size:  # damaged from outside
        stream.close()
        copy.unlink(missing_ok=True)
        return None
    with suppress(OSError):
        os.utime(copy)  # times of access are often not kept
    return stream


def _locked(path: Path, awaited: Path | None = None) -> int | None:
    """The descriptor of the file `path`, locked; None when `awaited` has appeared instead.

    Raises:
        CacheUnavailableError: its holder makes no progress.
    """
    progress, since = 0, time.monotonic()
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, descriptor):
                if awaited is None or not awaited.exists():
                    return descriptor
                path.unlink()
                os.close(descriptor)
                return None
        except BlockingIOError:
            written = os.fstat(descriptor).st_mtime_ns
            if written != progress:
                progress, since = written, time.monotonic()
            elif time.monotonic() - since > _PATIENCE_SECONDS:
                os.close(descriptor)
                raise CacheUnavailableError(f"whoever fetches {path} makes no progress: stop it") from None
            time.sleep(_POLL_SECONDS)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if awaited is not None and awaited.exists():
            return None


def _is_still(path: Path, descriptor: int) -> bool:
    """False where the file was renamed or removed between its opening and its locking."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _remove_abandoned(folder: Path, own: Path) -> None:
    """What killed fetchers have left: nobody holds its lock."""
    for part in folder.glob("*.part"):
        if part == own:
            continue
        with suppress(FileNotFoundError, BlockingIOError):
            descriptor = os.open(part, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_still(part, descriptor):
                    part.unlink()
            finally:
                os.close(descriptor)


# Of a copy: time of its last opening in ns, path, bytes.
_Copy = tuple[int, Path, int]


def _contents(folder: Path) -> tuple[list[_Copy], int]:
    """The copies, oldest first; and the bytes of all, unfinished ones too."""
    copies, held = [], 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            state = path.stat()
            held += state.st_size
            if path.suffix == ".tar":
                copies.append((state.st_mtime_ns, path, state.st_size))
    return sorted(copies), held


def _remove_oldest(copies: list[_Copy], needed: int) -> tuple[list[_Copy], int]:
    """Remove copies until so many bytes are gone; returns those that remain, and the bytes removed."""
    removed, rest = 0, list(copies)
    while rest and removed < needed:
        _, path, size = rest.pop(0)
        path.unlink(missing_ok=True)
        removed += size
    return rest, removed


def _free(folder: Path) -> int:
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


def _reserve(descriptor: int, size: int) -> None:
    """Make the file so large, and let the disk say now whether it has the room."""
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    os.ftruncate(descriptor, size)


def _write(descriptor: int, data: bytes, start: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, start)
        rest, start = rest[written:], start + written


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Errors of the cache's own disk, which end neither the reading nor the training."""
    try:
        yield
    except OSError as error:
        raise CacheUnavailableError(f"{folder}: {error.strerror or error}") from error
