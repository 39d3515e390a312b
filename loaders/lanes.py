"""Lanes that decode side by side: threads of this process, each with or without a process of its own."""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from rhostream.loaders.augmentation import Augmentation
from rhostream.loaders.buffers import Buffer
from rhostream.loaders.chunk import Failures, decode_chunk
from rhostream.loaders.decode_process import DecodeProcess
from rhostream.loaders.picks import Picks
from rhostream.loaders.pixels import Pixels
from rhostream.loaders.shard_reader import ShardReader

_AHEAD: Final = 2  # chunks that a process is given, so that it never waits for this one
_SECONDS_TO_END: Final = 1.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Job:
    """A chunk, and where its pixels go.

    Attributes:
        into: uint8 (n, size, size, channels), part of `buffer`; keeps the buffer from being used again.
        start: byte of the buffer at which `into` begins.
        urgent: goes before all that are not; few images, for which remote tars are not copied.
        done: the failures, or the error that ended the chunk; cancelled where the lanes were closed before.
    """

    picks: Picks
    augmentation: Augmentation
    into: Pixels
    buffer: Buffer
    start: int
    urgent: bool
    done: "Future[Failures]" = field(default_factory=Future)


class Lanes:
    """Does jobs, first come first served but for urgent ones.

    Args:
        count: of lanes.
        processes: does each lane have the work done by a process? While that starts, the lane's thread does it.
        worth: seconds of work that a lane does itself before it starts its process.
    """

    def __init__(self, shards: ShardReader, *, count: int, processes: bool, worth: float = 0.0) -> None:
        self._pid = os.getpid()
        self._jobs = _Jobs()
        self._lanes = [_Lane(self._jobs, shards, worth if processes else math.inf) for _ in range(count)]
        for lane in self._lanes:
            lane.start()

    @property
    def processes(self) -> list[int]:
        """Process ids of the processes that have been started."""
        return [lane.process.pid for lane in self._lanes if lane.process is not None]

    def submit(self, jobs: Sequence[Job]) -> None:
        """Begin them."""
        self._jobs.put(jobs)

    def close(self) -> None:
        """Give up what is not done, and end threads and processes.

        A thread that is decoding ends after its chunk; it is not waited for longer than a second, as a remote tar may
        keep it for minutes.
        """
        if os.getpid() != self._pid:
            return  # a fork has neither the threads nor the right to end the processes
        self._jobs.close()
        for lane in self._lanes:
            if lane.process is not None:
                lane.process.kill()
        deadline = time.monotonic() + _SECONDS_TO_END
        for lane in self._lanes:
            if lane is not threading.current_thread():
                lane.join(max(0.0, deadline - time.monotonic()))


class _Jobs:
    """A queue."""

    def __init__(self) -> None:
        self._urgent: deque[Job] = deque()
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def put(self, jobs: Sequence[Job]) -> None:
        with self._changed:
            if self._closed:
                raise RuntimeError("this reader of images has been closed")
            for job in jobs:
                (self._urgent if job.urgent else self._waiting).append(job)
            self._changed.notify(len(jobs))

    def take(self, *, wait: bool) -> Job | None:
        """None where there is none (after waiting: and none will come)."""
        with self._changed:
            while wait and not self._urgent and not self._waiting and not self._closed:
                self._changed.wait()
            first = self._urgent or self._waiting
            return first.popleft() if first else None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            for jobs in (self._urgent, self._waiting):
                for job in jobs:
                    job.done.cancel()
                jobs.clear()
            self._changed.notify_all()


class _Lane(threading.Thread):
    """Takes jobs until none will come. It knows nothing of `Lanes`, which ends it when it is itself forgotten."""

    def __init__(self, jobs: _Jobs, shards: ShardReader, worth: float) -> None:
        super().__init__(name="rhostream-decode", daemon=True)
        self.process: DecodeProcess | None = None
        self._jobs, self._shards, self._worth = jobs, shards, worth
        self._begun: deque[Job] = deque()  # by the process

    def run(self) -> None:
        while not self._jobs.closed and self._step():
            pass
        for job in self._begun:
            job.done.cancel()
        if self.process is not None:
            self.process.close()

    def _step(self) -> bool:
        """One thing; of no job anything is left afterwards, or its buffer would be held while this thread waits."""
        job = self._jobs.take(wait=not self._begun) if len(self._begun) < _AHEAD else None
        if job is not None:
            self._begin(job)
        elif self._begun and self.process is not None:
            self._settle(self._begun.popleft(), self.process.receive)
        else:
            return False
        return True

    def _begin(self, job: Job) -> None:
        try:
            if self.process is None and self._worth <= 0:
                self.process = DecodeProcess(self._shards)
            if self.process is not None and self.process.is_ready and job.buffer.file is not None:
                self.process.send(
                    job.picks,
                    job.augmentation,
                    buffer=job.buffer,
                    start=job.start,
                    shape=job.into.shape,
                    whole=not job.urgent,
                )
                self._begun.append(job)
                return
        except BaseException as error:  # noqa: BLE001 - it is raised where the images are wanted
            self._fail(job, error)
            return
        begin = time.monotonic()
        self._settle(
            job, lambda: decode_chunk(self._shards, job.picks, job.augmentation, job.into, whole=not job.urgent)
        )
        self._worth -= time.monotonic() - begin

    def _settle(self, job: Job, work: Callable[[], Failures | BaseException]) -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - it is raised where the images are wanted
            result = error
        if isinstance(result, BaseException):
            self._fail(job, result)
        else:
            job.done.set_result(result)

    def _fail(self, job: Job, error: BaseException) -> None:
        if self._jobs.closed:  # then it is our doing
            job.done.cancel()
        else:
            job.done.set_exception(error)
