"""Bytes and pixels of samples, read by offset and decoded by threads."""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import numpy as np
import numpy.typing as npt

from rhostream.errors import ShardError, UndecodableImageError
from rhostream.loaders.augmentation import Augmentation
from rhostream.loaders.index import Shard
from rhostream.loaders.view import Pixels, View
from rhostream.loaders.workspace import Workspace

MAX_OPEN_SHARDS = 64


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


class ShardReader:
    """Reads image bytes out of tars by offset. Safe for threads; after a fork or pickling it opens its own files."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._open: OrderedDict[str, IO[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["ShardReader"], tuple[Workspace]]:
        return (type(self), (self.workspace,))

    def read(self, shard: Shard, offset: int, size: int) -> bytes:
        """Raises ShardError where the tar has vanished or ends before `offset + size`."""
        if self.workspace.is_local:
            # The name keeps the file open until the read is over, even if another thread evicts it meanwhile.
            stream = self._file(shard)
            data = os.pread(stream.fileno(), size, offset)
        else:
            with self._opened(shard) as stream:
                stream.seek(offset)
                data = stream.read(size)
        if len(data) != size:
            raise ShardError(
                f"{self.workspace.path(shard.tar)} ends at byte {self.workspace.size(shard.tar)}, its index expects "
                f"{size} bytes at {offset}: the shard is truncated; run `rho shards` again, it rewrites it"
            )
        return data

    def _file(self, shard: Shard) -> IO[bytes]:
        with self._lock:
            stream = self._open.get(shard.name)
            if stream is None:
                stream = self._open[shard.name] = self._opened(shard)
            self._open.move_to_end(shard.name)
            if len(self._open) > MAX_OPEN_SHARDS:
                # Not closed here, another thread may be reading from it: the last reference to it does that.
                self._open.popitem(last=False)
        return stream

    def _opened(self, shard: Shard) -> IO[bytes]:
        try:
            return self.workspace.open(shard.tar)
        except FileNotFoundError as error:
            raise ShardError(
                f"{self.workspace.path(shard.tar)} has vanished, though the index lists it: restore it, or run "
                "`rho shards` again"
            ) from error


class ImageReader:
    """Reads and decodes samples to the pixels of one view with `threads` threads (the codecs release the GIL)."""

    def __init__(self, workspace: Workspace, view: View, threads: int = 0) -> None:
        self.view = view
        self._shards = ShardReader(workspace)
        self._threads = threads or available_cores()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="rhostream-decode")

    def images(
        self,
        shards: Sequence[Shard],
        offsets: npt.NDArray[np.int64],
        sizes: npt.NDArray[np.int64],
        augmentation: Augmentation = "none",
        draws: Sequence[str] | None = None,
    ) -> tuple[Pixels, list[tuple[int, str]]]:
        """Decode n samples; `shards[i]` holds sample i, `draws[i]` decides its augmentation.

        Returns:
            images: uint8 (n, C, H, W).
            failures: (position, reason) of the images that do not decode; their pixels are zero.
        """
        view = self.view
        images = np.zeros((len(shards), view.channels, view.size, view.size), np.uint8)

        def fill(part: range) -> list[tuple[int, str]]:
            failures = []
            for position in part:
                try:
                    data = self._shards.read(shards[position], int(offsets[position]), int(sizes[position]))
                    images[position] = view.pixels(data, augmentation, draws[position] if draws else "")
                except UndecodableImageError as error:
                    failures.append((position, str(error)))
            return failures

        parts = [range(start, len(shards), self._threads) for start in range(min(self._threads, len(shards)))]
        return images, [failure for failures in self._pool.map(fill, parts) for failure in failures]

    def close(self) -> None:
        self._pool.shutdown()
