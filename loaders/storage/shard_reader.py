"""Bytes of samples, read by offset out of tars, local or remote."""

import os
import re
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import IO

from rhostream.errors import Remedy, ShardError, Stage, WorkspaceError
from rhostream.loaders.storage import remote
from rhostream.loaders.storage.shard_cache import CacheUnavailableError, ShardCache, tell_once
from rhostream.loaders.storage.workspace import Workspace

MAX_OPEN_SHARDS = 64
MAX_REMOVED_SHARDS = 16  # of the open ones, those that the cache has removed: they hold their disk space
PREFETCH_THREADS = 4

#: A tar of thumbnails, see `thumbnails.thumbnail_tar`.
_THUMBNAILS = re.compile(
    r"(?P<workspace>.+)/thumbnails/(?P<size>\d+)-(?P<format>\w+)/shards/(?P<split>[a-z]+)-[^/]+\.tar"
)

_RANGED_SECONDS = 30.0  # so long a tar of which no copy could be made is read range by range before it is tried again


#: Those of this process.
_readers: "weakref.WeakSet[ShardReader]" = weakref.WeakSet()


class ShardReader:
    """Reads image bytes out of tars by offset. Safe for threads; after a fork or pickling it opens its own files.

    A local tar is read where it lies. A remote one is copied whole into the bounded cache folder on its first read
    (see `ShardCache`), and read range by range where no copy can be kept.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._begin()
        _readers.add(self)

    def __reduce__(self) -> tuple[type["ShardReader"], tuple[Workspace]]:
        return (type(self), (self.workspace,))

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, IO[bytes]] = {}  # the one opened last at the end
        self._coming: dict[str, Future[IO[bytes]]] = {}
        self._ranged: dict[str, float] = {}  # until when, in seconds of the monotonic clock
        self._fetched_again: set[str] = set()
        self._wanted: deque[str] = deque()
        self._prefetching = 0

    def read(self, tar: str, offset: int, size: int, *, whole: bool = True) -> bytes:
        """`size` bytes at `offset` of the tar with this name (`Shard.tar`).

        Args:
            whole: False where only few of the tar's images are wanted, such as the selected ones: a remote tar that is
                not open here is then not copied, and each image costs one request.

        Raises:
            ShardError: the tar has vanished, ends before `offset + size`, or its store keeps failing.
        """
        try:
            # The name keeps the file open until the read is over, even if another thread evicts it meanwhile.
            stream = self._open.get(tar) or self._file(tar, whole)
            if stream is None:
                data = remote.read_range(self.workspace.path(tar), offset, offset + size)
            else:
                data = os.pread(stream.fileno(), size, offset)
            if len(data) == size:
                return data
            end = self.workspace.size(tar)
        except FileNotFoundError as error:
            raise self._lost(tar, "has vanished, though the index lists it") from error
        except WorkspaceError as error:
            raise ShardError(error.message, *error.remedies) from error
        expected = f"its index expects {size} bytes at {offset}"
        raise self._lost(tar, f"ends at byte {end}, {expected}: the tar is truncated")

    def forget_copy(self, tar: str) -> bool:
        """Remove the copy of a remote tar whose bytes are not as they should be, once; the next read fetches it again.

        Returns:
            Is it worth reading again? Where it was removed before, by another thread that met the same copy, too: what
            is not as it should be in the new one is damaged in the tar itself.
        """
        path = self.workspace.path(tar)
        with self._lock:
            if tar in self._fetched_again:
                return True
            stream = self._open.get(tar)
            if stream is None or not remote.is_remote(path):
                return False
            self._fetched_again.add(tar)
            del self._open[tar]
        ShardCache().remove(path, stream)
        return True

    def prefetch(self, tars: Iterable[str]) -> None:
        """Begin to bring these tars near, in background threads: remote ones into the cache, local ones into memory.

        Returns at once. What fails here is met, and raised, again when it is read.
        """
        with self._lock:
            self._wanted.extend(tar for tar in tars if tar not in self._open and tar not in self._wanted)
            while self._prefetching < min(PREFETCH_THREADS, len(self._wanted)):
                self._prefetching += 1
                # Daemons: a fetch under way does not keep the process from ending, the next one starts it over.
                threading.Thread(target=self._prefetch, daemon=True, name="rhostream-prefetch").start()

    def _prefetch(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._prefetching -= 1
                    return
                tar = self._wanted.popleft()
            with suppress(Exception):
                stream = self._brought(tar)
                if not remote.is_remote(self.workspace.path(tar)):
                    os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def _file(self, tar: str, whole: bool) -> IO[bytes] | None:
        """A tar that is not open yet; None where it is to be read range by range."""
        if remote.is_remote(self.workspace.path(tar)):
            if not whole or ShardCache().limit == 0 or time.monotonic() < self._ranged.get(tar, 0):
                return None
            try:
                return self._brought(tar)
            except CacheUnavailableError as error:
                tell_once(error)
                self._ranged[tar] = time.monotonic() + _RANGED_SECONDS
                return None
        return self._brought(tar)

    def _brought(self, tar: str) -> IO[bytes]:
        """The tar opened, by this thread or by the one that is at it already."""
        with self._lock:
            if tar in self._open:
                return self._open[tar]
            coming = self._coming.get(tar)
            mine = coming is None
            if coming is None:
                coming = self._coming[tar] = Future()
        if mine:
            self._bring(tar, coming)
        return coming.result()

    def _bring(self, tar: str, coming: "Future[IO[bytes]]") -> None:
        path = self.workspace.path(tar)
        try:
            stream = ShardCache().open(path) if remote.is_remote(path) else self.workspace.open(tar)
        except BaseException as error:  # noqa: BLE001 - raised by `result`, in every thread that waits for it
            coming.set_exception(error)
            with self._lock:
                self._coming.pop(tar, None)
            return
        with self._lock:
            self._coming.pop(tar, None)
            self._open[tar] = stream
            # Not closed here, another thread may be reading from it: the last reference to it does that.
            if len(self._open) > MAX_OPEN_SHARDS:
                del self._open[next(iter(self._open))]
            removed = [name for name, file in self._open.items() if os.fstat(file.fileno()).st_nlink == 0]
            for name in removed[:-MAX_REMOVED_SHARDS]:
                del self._open[name]
        coming.set_result(stream)

    def _lost(self, tar: str, cause: str) -> ShardError:
        """The error for this tar, with how to come by it again."""
        message = f"{self.workspace.path(tar)} {cause}: restore it, or"
        if found := _THUMBNAILS.fullmatch(self.workspace.path(tar)):
            place = found["workspace"] if remote.is_remote(tar) or tar.startswith("/") else self.workspace.location
            settings = {name: found[name] for name in ("size", "format", "split")}
            return ShardError(message, Remedy(Stage.THUMBNAILS, place, settings))
        if tar.startswith("/") or "://" in tar:  # of another workspace, or one that others have made
            return ShardError(f"{message} make it and its index again")
        return ShardError(message, Remedy(Stage.SHARDS, self.workspace.location))


def _begin_in_fork() -> None:
    """The parent's locks may have been held, and its threads are not here."""
    for reader in _readers:
        reader._begin()


os.register_at_fork(after_in_child=_begin_in_fork)
