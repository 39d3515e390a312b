"""Memory of super-batches: given out as arrays, taken back once nobody holds those, and used again.

Fresh memory costs a page fault every 4 KiB, which is a tenth of the time of a full-size super-batch.
"""

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
        shared: with a file, for other processes.
        pinned: page-locked, where CUDA is there. Such a buffer is used again only when the copies to the GPU have ended
            that were begun on the stream which is current where its last array is let go; copies on other streams
            must have ended by then.
    """

    def __init__(self, *, shared: bool, pinned: bool = False) -> None:
        self._shared, self._pinned = shared, pinned
        # Buffers come back here from whatever thread lets the last array go; beyond the bound the oldest one is freed.
        # With each, what tells whether copies from it have ended.
        self._free: deque[tuple[Buffer, Callable[[], bool]]] = deque(maxlen=_MAX_FREE)
        self._lock = threading.Lock()

    def take(self, count: int) -> tuple[Buffer, npt.NDArray[np.uint8]]:
        """A buffer, and `count` bytes of it from START on, of any content.

        The buffer is given out again when that array, and all that were made from it, are gone.
        """
        buffer = self._reusable(count) or self._fresh(count)
        array = buffer.bytes(count)
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
        try:
            if self._shared:
                file = _nameless_file(capacity)
                buffer = Buffer(memory=mmap.mmap(file.fileno(), capacity), file=file)
            else:
                buffer = Buffer(memory=mmap.mmap(-1, capacity, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), file=None)
                if hasattr(mmap, "MADV_HUGEPAGE"):
                    buffer.memory.madvise(mmap.MADV_HUGEPAGE)
        except OSError as error:
            raise RhostreamError(
                f"no memory for a super-batch of {count} bytes ({error}): choose a smaller super-batch, view or "
                "prefetch"
            ) from error
        if self._pinned:
            _lock_pages(buffer)
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
    free.append((buffer, _copies_ended() if pinned else lambda: True))


def _copies_ended() -> Callable[[], bool]:
    """Have the copies ended that this thread's stream has begun?"""
    import torch  # here, so that processes which only decode do not load it

    if not torch.cuda.is_available():
        return lambda: True
    event = torch.cuda.Event()
    event.record()
    return event.query


def _lock_pages(buffer: Buffer) -> None:
    """For as long as the buffer exists, so that CUDA copies from it at full speed and in the background."""
    import torch

    if not torch.cuda.is_available():
        return
    driver = torch.cuda.cudart()
    address = buffer.bytes(0).ctypes.data - START
    status = int(driver.cudaHostRegister(address, len(buffer.memory), 0))
    if status != 0:
        raise RhostreamError(
            f"CUDA cannot page-lock {len(buffer.memory)} bytes (error {status}): choose a smaller super-batch or "
            "prefetch, or pin_memory=False"
        )
    weakref.finalize(buffer, driver.cudaHostUnregister, address).atexit = False
