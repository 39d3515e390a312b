"""The units of `rho shards` made by local processes: progress while they run, an early end for all when one fails."""

import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from rhostream.pipeline.lock import hold_as_worker
from rhostream.pipeline.processes import in_processes
from rhostream.pipeline.units import Unit, UnitMaker, UnitRecord

SECONDS_BETWEEN_REPORTS = 0.2


class _StoppedError(Exception):
    """Another unit has failed: leave this one unfinished."""


def make_units(
    maker: UnitMaker, units: Sequence[Unit], *, workers: int, advance: Callable[[int], None]
) -> Iterator[tuple[int, UnitRecord]]:
    """(number, record) of every unit, as they become ready.

    Args:
        workers: processes; 0 works in this one, and so does a single unit.
        advance: called with the number of entries done since the last call.
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


def _start(maker: UnitMaker, done: Any, stop: Any, number: int) -> Callable[[Unit], tuple[int, UnitRecord | None]]:
    """In a worker: what makes one unit; the record is None where another worker's failure has stopped it."""
    hold_as_worker(maker.workspace, "shards")

    def advance(count: int) -> None:
        if stop.is_set():
            raise _StoppedError
        with done.get_lock():
            done.value += count

    def make(unit: Unit) -> tuple[int, UnitRecord | None]:
        try:
            return unit.number, maker(unit, advance)
        except _StoppedError:
            return unit.number, None
        except BaseException:
            stop.set()
            raise

    return make
