"""A decoding process, as seen by the process that starts it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rhostream.errors import WorkerError
from rhostream.loaders.decode.augmentation import Augmentation
from rhostream.loaders.decode.buffers import Buffer
from rhostream.loaders.decode.channel import Channel
from rhostream.loaders.decode.chunk import Failures
from rhostream.loaders.decode.stored_refs import StoredRefs
from rhostream.loaders.storage import ShardReader

_SECONDS_TO_END: Final = 5.0
_REMEDY: Final = (
    "if memory is short, take fewer workers or a smaller super-batch; Reading(workers=0) decodes in threads"
)


class DecodeRequest(NamedTuple):
    """What a decoding process is asked for; of few and plain objects, as it is pickled.

    Attributes:
        buffer: number of the buffer to fill; its file comes along where the process does not have it yet.
        start: byte of the buffer at which the first image's pixels begin.
        shape: (n, size, size, channels).
        gone: numbers of buffers that will not be used any more.
        whole: see `ShardReader.read`.
        tars, hashes, augmentation_seeds: as in `StoredRefs`.
        numbers, offsets, sizes: int32 and int64 (n,), as in `StoredRefs`, their bytes.
    """

    buffer: int
    start: int
    shape: tuple[int, ...]
    gone: list[int]
    whole: bool
    augmentation: Augmentation
    tars: list[str]
    hashes: list[str] | None
    augmentation_seeds: list[str] | None
    numbers: bytes
    offsets: bytes
    sizes: bytes

    def refs(self) -> StoredRefs:
        return StoredRefs(
            tars=self.tars,
            numbers=np.frombuffer(self.numbers, np.int32),
            offsets=np.frombuffer(self.offsets, np.int64),
            sizes=np.frombuffer(self.sizes, np.int64),
            hashes=self.hashes,
            augmentation_seeds=self.augmentation_seeds,
        )


class DecodeProcess:
    """Starts a process which fills buffers shared with this one. Not safe for threads.

    The process is a fresh interpreter, not a fork: forks copy locks of threads that are not there. It ends when this
    process does, however it does.

    Args:
        shards: is pickled.
    """

    def __init__(self, shards: ShardReader) -> None:
        ours, theirs = socket.socketpair()
        # The same modules from the same places as here, and no folder of the user's before the standard library.
        paths = [path or os.getcwd() for path in sys.path]  # noqa: PTH109
        command = [
            sys.executable,
            "-P",
            "-m",
            "rhostream.loaders.decode.process_main",
            str(theirs.fileno()),
            str(os.getpid()),
        ]
        try:
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
                process_group=0,  # Ctrl-C is for the parent to act on
            )
        except OSError as error:
            raise WorkerError(f"cannot start a decoding process ({error}): {_REMEDY}") from error
        finally:
            theirs.close()
        self.pid = self._process.pid
        self._channel = Channel(ours, lambda: self._process.poll() is None)
        self._known: dict[int, weakref.ref[Buffer]] = {}  # the buffers that the process has mapped
        self._ready = False
        with self._dying_told():
            self._channel.send(shards)

    @property
    def is_ready(self) -> bool:
        """Has it started? Who waits for it can as well decode meanwhile.

        Raises:
            WorkerError: it has died.
        """
        if not self._ready and self._channel.has_message():
            with self._dying_told():
                self._channel.receive()
            self._ready = True
        return self._ready

    def send(
        self,
        refs: StoredRefs,
        augmentation: Augmentation,
        *,
        buffer: Buffer,
        start: int,
        shape: tuple[int, ...],
        whole: bool,
    ) -> None:
        """Have a chunk decoded into the buffer, whose `file` is there.

        Raises:
            WorkerError: the process has died.
        """
        gone = [number for number, known in self._known.items() if known() is None]
        for number in gone:
            del self._known[number]
        tars, numbers = _used(refs)
        task = DecodeRequest(
            buffer=buffer.number,
            start=start,
            shape=shape,
            gone=gone,
            whole=whole,
            augmentation=augmentation,
            tars=tars,
            hashes=None if refs.hashes is None else list(refs.hashes),
            augmentation_seeds=None if refs.augmentation_seeds is None else list(refs.augmentation_seeds),
            numbers=numbers.astype(np.int32, copy=False).tobytes(),
            offsets=refs.offsets.astype(np.int64, copy=False).tobytes(),
            sizes=refs.sizes.astype(np.int64, copy=False).tobytes(),
        )
        new = buffer.file is not None and buffer.number not in self._known
        with self._dying_told():
            self._channel.send(task, buffer.file.fileno() if buffer.file is not None and new else None)
        self._known[buffer.number] = weakref.ref(buffer)

    def receive(self) -> Failures | BaseException:
        """What became of the chunk sent first of those that have no answer yet: `decode_chunk`'s result, or error.

        Raises:
            WorkerError: the process has died.
        """
        with self._dying_told():
            answer: Failures | BaseException = self._channel.receive()[0]
        return answer

    def kill(self) -> None:
        """End the process, from any thread; whoever waits for its answer is told of its death."""
        self._process.kill()

    def close(self) -> None:
        """End the process, whatever it is doing: nothing of it is needed any more."""
        self.kill()
        self._channel.close()
        self._process.wait()

    @contextlib.contextmanager
    def _dying_told(self) -> Iterator[None]:
        try:
            yield
        except EOFError:
            raise WorkerError(f"decoding process {self.pid} {self._end()}: {_REMEDY}") from None

    def _end(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):  # its last sign of life may come before its end
            self._process.wait(_SECONDS_TO_END)
        self.close()
        code = self._process.returncode
        if code >= 0:
            return f"has ended with status {code}"
        return f"was killed by {signal.Signals(-code).name}"


def _used(refs: StoredRefs) -> tuple[list[str], npt.NDArray[Any]]:
    """The tars that are read from, where there are many more, and which of them holds each image."""
    if len(refs.tars) <= len(refs):
        return list(refs.tars), refs.numbers
    used, numbers = np.unique(refs.numbers, return_inverse=True)
    return [refs.tars[number] for number in used], numbers
