"""Workers that decode side by side: threads of this process, each with or without a process of its own."""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from rhostream.loaders.decode.augmentation import Augmentation
from rhostream.loaders.decode.buffers import Buffer
from rhostream.loaders.decode.chunk import Failures, decode_chunk
from rhostream.loaders.decode.pixels import Pixels
from rhostream.loaders.decode.process import DecodeProcess
from rhostream.loaders.decode.stored_refs import StoredRefs
from rhostream.loaders.storage import ShardReader

_AHEAD: Final = 2  # chunks that a process is given, so that it never waits for this one
_SECONDS_TO_END: Final = 1.0


@dataclass(frozen=True, eq=False, kw_only=True)
class DecodeTask:
    """A chunk, and where its pixels go.

    Attributes:
        into: uint8 (n, size, size, channels), part of `buffer`; keeps the buffer from being used again.
        start: byte of the buffer at which `into` begins.
        urgent: goes before all that are not; few images, for which remote tars are not copied.
        done: the failures, or the error that ended the chunk; cancelled where the pool was closed before.
    """

    refs: StoredRefs
    augmentation: Augmentation
    into: Pixels
    buffer: Buffer
    start: int
    urgent: bool
    done: "Future[Failures]" = field(default_factory=Future)


class DecodePool:
    """Does tasks, first come first served but for urgent ones.

    Args:
        count: of workers, a thread each.
        processes: does each worker have the work done by a process? While that starts, its thread does it.
        worth: seconds of work that a worker's thread does itself before it starts the process.
    """

    def __init__(self, shards: ShardReader, *, count: int, processes: bool, worth: float = 0.0) -> None:
        self._pid = os.getpid()
        self._tasks = _Tasks()
        self._workers = [_Worker(self._tasks, shards, worth if processes else math.inf) for _ in range(count)]
        for worker in self._workers:
            worker.start()

    @property
    def processes(self) -> list[int]:
        """Process ids of the processes that have been started."""
        return [worker.process.pid for worker in self._workers if worker.process is not None]

    def submit(self, tasks: Sequence[DecodeTask]) -> None:
        """Begin them."""
        self._tasks.put(tasks)

    def close(self) -> None:
        """Give up what is not done, and end threads and processes.

        A thread that is decoding ends after its chunk; it is not waited for longer than a second, as a remote tar may
        keep it for minutes.
        """
        if os.getpid() != self._pid:
            return  # a fork has neither the threads nor the right to end the processes
        self._tasks.close()
        for worker in self._workers:
            if worker.process is not None:
                worker.process.kill()
        deadline = time.monotonic() + _SECONDS_TO_END
        for worker in self._workers:
            if worker is not threading.current_thread():
                worker.join(max(0.0, deadline - time.monotonic()))


class _Tasks:
    """Tasks that no worker has begun: a queue for the urgent ones and one for the others."""

    def __init__(self) -> None:
        self._urgent: deque[DecodeTask] = deque()
        self._waiting: deque[DecodeTask] = deque()
        self._changed = threading.Condition()
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def put(self, tasks: Sequence[DecodeTask]) -> None:
        with self._changed:
            if self._closed:
                raise RuntimeError("this reader of images has been closed")
            for task in tasks:
                (self._urgent if task.urgent else self._waiting).append(task)
            self._changed.notify(len(tasks))

    def take(self, *, wait: bool) -> DecodeTask | None:
        """None where there is none (after waiting: and none will come)."""
        with self._changed:
            while wait and not self._urgent and not self._waiting and not self._closed:
                self._changed.wait()
            first = self._urgent or self._waiting
            return first.popleft() if first else None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            for tasks in (self._urgent, self._waiting):
                for task in tasks:
                    task.done.cancel()
                tasks.clear()
            self._changed.notify_all()


class _Worker(threading.Thread):
    """Takes tasks until none will come. It knows nothing of `DecodePool`, which ends it when it is itself forgotten."""

    def __init__(self, tasks: _Tasks, shards: ShardReader, worth: float) -> None:
        super().__init__(name="rhostream-decode", daemon=True)
        self.process: DecodeProcess | None = None
        self._tasks, self._shards, self._worth = tasks, shards, worth
        self._begun: deque[DecodeTask] = deque()  # by the process

    def run(self) -> None:
        while not self._tasks.closed and self._step():
            pass
        for task in self._begun:
            task.done.cancel()
        if self.process is not None:
            self.process.close()

    def _step(self) -> bool:
        """One thing; of no task anything is left afterwards, or its buffer would be held while this thread waits."""
        task = self._tasks.take(wait=not self._begun) if len(self._begun) < _AHEAD else None
        if task is not None:
            self._begin(task)
        elif self._begun and self.process is not None:
            self._settle(self._begun.popleft(), self.process.receive)
        else:
            return False
        return True

    def _begin(self, task: DecodeTask) -> None:
        try:
            if self.process is None and self._worth <= 0:
                self.process = DecodeProcess(self._shards)
            if self.process is not None and self.process.is_ready and task.buffer.file is not None:
                self.process.send(
                    task.refs,
                    task.augmentation,
                    buffer=task.buffer,
                    start=task.start,
                    shape=task.into.shape,
                    whole=not task.urgent,
                )
                self._begun.append(task)
                return
        except BaseException as error:  # noqa: BLE001 - it is raised where the images are wanted
            self._fail(task, error)
            return
        begin = time.monotonic()
        self._settle(
            task, lambda: decode_chunk(self._shards, task.refs, task.augmentation, task.into, whole=not task.urgent)
        )
        self._worth -= time.monotonic() - begin

    def _settle(self, task: DecodeTask, work: Callable[[], Failures | BaseException]) -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - it is raised where the images are wanted
            result = error
        if isinstance(result, BaseException):
            self._fail(task, result)
        else:
            task.done.set_result(result)

    def _fail(self, task: DecodeTask, error: BaseException) -> None:
        if self._tasks.closed:  # then it is our doing
            task.done.cancel()
        else:
            task.done.set_exception(error)
