"""Memory of super-batches: given out as arrays, taken back once nobody holds those, and used again.

Fresh memory costs a page fault every 4 KiB, which is a tenth of the time of a full-size super-batch.
"""

import errno
import mmap
import os
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from rhostream.errors import RhostreamError

#: Where the pixels begin, bytes. Rows at multiples of 32 would make libjpeg-turbo write past the caches, which was
#: measured to make decoding 5 % slower.
START: Final = 16

_MAX_FREE: Final = 8
#: Each takes two file descriptors, of which a process commonly has 1024, while super-batches may be held by hundreds.
_MAX_SHARED: Final = 64
_PAGE: Final = mmap.PAGESIZE

_numbers = count()


@dataclass(frozen=True, eq=False, kw_only=True)
class Buffer:
    """A piece of memory.

    Attributes:
        file: the memory as a file without a name, which another process can map; None where it is this process's alone.
        number: its own in this process.
    """

    memory: mmap.mmap
    file: BinaryIO | None
    number: int = field(default_factory=lambda: next(_numbers))

    def bytes(self, count: int) -> npt.NDArray[np.uint8]:
        """The first `count` bytes from START on. Every array made from this one keeps it alive."""
        return np.frombuffer(self.memory, np.uint8, count, START)


class BufferPool:
    """Buffers in use and some that are not.

    Args:
        shared: with a file, for other processes, but for buffers beyond the 64th in use.
        pinned: page-locked, where CUDA is there. Such a buffer is used again only when the copies to GPUs have ended
            that were begun on the streams which are current where its last array is let go; copies on other streams
            must have ended by then.
    """

    def __init__(self, *, shared: bool, pinned: bool = False) -> None:
        self._shared, self._pinned = shared, pinned
        # Buffers come back here from whatever thread lets the last array go; beyond the bound the oldest one is freed.
        # With each, what tells whether copies from it have ended.
        self._free: deque[tuple[Buffer, Callable[[], bool]]] = deque(maxlen=_MAX_FREE)
        self._lock = threading.Lock()
        self._sharing: weakref.WeakSet[Buffer] = weakref.WeakSet()

    def take(self, count: int) -> tuple[Buffer, npt.NDArray[np.uint8]]:
        """A buffer, and `count` bytes of it from START on, of any content.

        The buffer is given out again when that array, and all that were made from it, are gone.
        """
        buffer = self._reusable(count) or self._fresh(count)
        array = buffer.bytes(count)
        if self._shared and buffer.file is None:
            return buffer, array  # one that was made for want of a better one is not to be taken for that again
        weakref.finalize(array, _give_back, self._free, buffer, self._pinned).atexit = False
        return buffer, array

    def _reusable(self, count: int) -> Buffer | None:
        """The smallest one that is free and large enough, but not far too large."""
        with self._lock:
            free = [self._free.popleft() for _ in range(len(self._free))]
            fitting = [
                buffer
                for buffer, copied in free
                if START + count <= len(buffer.memory) <= max(2 * count, 16 * _PAGE) and copied()
            ]
            best = min(fitting, key=lambda buffer: len(buffer.memory), default=None)
            self._free.extend(entry for entry in free if entry[0] is not best)
        return best

    def _fresh(self, count: int) -> Buffer:
        capacity = -(-(START + count) // _PAGE) * _PAGE
        shared = self._shared and len(self._sharing) < _MAX_SHARED
        try:
            if shared:
                file = _nameless_file(capacity)
                buffer = Buffer(memory=mmap.mmap(file.fileno(), capacity), file=file)
                self._sharing.add(buffer)
            else:
                buffer = Buffer(memory=mmap.mmap(-1, capacity, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), file=None)
                if hasattr(mmap, "MADV_HUGEPAGE"):
                    buffer.memory.madvise(mmap.MADV_HUGEPAGE)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                remedy = "raise the limit of open files (ulimit -n), or decode in threads with Reading(workers=0)"
            else:
                remedy = "hold fewer super-batches at once, or choose a smaller super-batch, spec or prefetch"
            raise RhostreamError(f"no memory for a super-batch of {count} bytes ({error}): {remedy}") from error
        if self._pinned and shared == self._shared:
            # Here, so that processes which only decode do not load torch.
            from rhostream.loaders.decode.page_lock import lock_pages

            lock_pages(buffer, buffer.bytes(0).ctypes.data - START, capacity)
        return buffer


def _nameless_file(size: int) -> BinaryIO:
    """In memory; nothing of it is left when the last process that has it open ends, however it ends."""
    if hasattr(os, "memfd_create"):
        file: BinaryIO = os.fdopen(os.memfd_create("rhostream", os.MFD_CLOEXEC), "r+b", buffering=0)
    else:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with its buffer
    os.ftruncate(file.fileno(), size)
    return file


def _give_back(free: "deque[tuple[Buffer, Callable[[], bool]]]", buffer: Buffer, pinned: bool) -> None:
    if pinned:
        from rhostream.loaders.decode.page_lock import copies_ended

        free.append((buffer, copies_ended()))
    else:
        free.append((buffer, lambda: True))
