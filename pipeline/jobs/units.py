"""Units of work made by local processes: progress while they run, an early end for all when one fails."""

import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

from rhostream.loaders.storage import Workspace
from rhostream.pipeline.jobs.lock import hold_as_worker
from rhostream.pipeline.jobs.processes import in_processes

SECONDS_BETWEEN_REPORTS = 0.2


class Numbered(Protocol):
    """A unit of work."""

    @property
    def number(self) -> int: ...


Unit = TypeVar("Unit", bound=Numbered)
UnitIn = TypeVar("UnitIn", bound=Numbered, contravariant=True)
Record = TypeVar("Record")
RecordOut = TypeVar("RecordOut", covariant=True)


class Maker(Protocol[UnitIn, RecordOut]):
    """Makes units; it is pickled to the workers.

    Attributes:
        folder: of the workspace, held by the workers as long as they live, see `hold_as_worker`.
    """

    @property
    def workspace(self) -> Workspace: ...

    @property
    def folder(self) -> str: ...

    def __call__(self, unit: UnitIn, advance: Callable[[int], None], /) -> RecordOut: ...


class _StoppedError(Exception):
    """Another unit has failed: leave this one unfinished."""


def make_units(
    maker: Maker[Unit, Record], units: Sequence[Unit], *, workers: int, advance: Callable[[int], None]
) -> Iterator[tuple[int, Record]]:
    """(number, record) of every unit, as they become ready.

    Args:
        workers: processes; 0 works in this one, and so does a single unit.
        advance: called with how much was done since the last call.
    """
    if not workers or len(units) < 2:
        for unit in units:
            yield unit.number, maker(unit, advance)
        return
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q", 0), context.Event()
    with _reporting(done, advance):
        for number, record in in_processes(partial(_start, maker, done, stop), units, workers):
            if record is not None:
                yield number, record


@contextmanager
def _reporting(done: Any, advance: Callable[[int], None]) -> Iterator[None]:
    ended = threading.Event()

    def report() -> None:
        reported = 0
        while True:
            last = ended.wait(SECONDS_BETWEEN_REPORTS)
            advance(done.value - reported)
            reported = done.value
            if last:
                return

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _start(
    maker: Maker[Unit, Record], done: Any, stop: Any, number: int
) -> Callable[[Unit], tuple[int, Record | None]]:
    """In a worker: what makes one unit; the record is None where another worker's failure has stopped it."""
    hold_as_worker(maker.workspace, maker.folder)

    def advance(count: int) -> None:
        if stop.is_set():
            raise _StoppedError
        with done.get_lock():
            done.value += count

    def make(unit: Unit) -> tuple[int, Record | None]:
        try:
            return unit.number, maker(unit, advance)
        except _StoppedError:
            return unit.number, None
        except BaseException:
            stop.set()
            raise

    return make
