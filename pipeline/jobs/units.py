"""Units of work, made by an engine: progress while they are made, an early end for all when one fails."""

import multiprocessing
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

from rhostream.loaders.storage import write_apart
from rhostream.pipeline.jobs.engine import Engine
from rhostream.pipeline.jobs.lock import hold_as_worker
from rhostream.pipeline.jobs.maker import Advance, Maker, Numbered, StoppedError
from rhostream.pipeline.jobs.processes import in_processes

SECONDS_BETWEEN_REPORTS = 0.2

Unit = TypeVar("Unit", bound=Numbered)
Record = TypeVar("Record")


def make_units(
    maker: Maker[Unit, Record], units: Iterable[Unit], *, engine: Engine, advance: Advance
) -> Iterator[tuple[int, Record]]:
    """(number, record) of every unit, as they become ready. Units are taken as workers become free.

    Args:
        units: those that this job makes.
        advance: called with how much was done since the last call.

    Raises:
        RhostreamError: a worker died, or cannot begin. Errors of the maker come as they are; what is not yet begun is
            given up.
        KeyboardInterrupt: at once, by SIGINT or SIGTERM: the workers end, whatever they are doing.
    """
    rest = iter(units)
    first = list(islice(rest, 2))
    units = chain(first, rest)
    if engine.name == "ray" and first:
        from rhostream.pipeline.jobs.on_ray import make_on_ray  # here: it needs the extra `ray`

        yield from make_on_ray(maker, units, workers=engine.workers, advance=advance)
    elif not engine.processes or len(first) < 2:
        make = maker.begin(0) if first else maker
        for unit in units:
            yield unit.number, make(unit, advance)
    else:
        context = multiprocessing.get_context("spawn")
        done, stop = context.Value("q", 0), context.Event()
        with _reporting(done, advance):
            start = partial(_start, maker, done, stop, engine.is_shared)
            for number, record in in_processes(start, units, engine.processes):
                if record is not None:
                    yield number, record


@contextmanager
def _reporting(done: Any, advance: Advance) -> Iterator[None]:
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
    maker: Maker[Unit, Record], done: Any, stop: Any, apart: bool, number: int
) -> Callable[[Unit], tuple[int, Record | None]]:
    """In a worker: what makes one unit; the record is None where another worker's failure has stopped it."""
    hold_as_worker(maker.workspace, maker.folder)
    if apart:
        write_apart(secrets.token_hex(6))
    make_it = maker.begin(number)

    def advance(count: int) -> None:
        if stop.is_set():
            raise StoppedError
        with done.get_lock():
            done.value += count

    def make(unit: Unit) -> tuple[int, Record | None]:
        try:
            return unit.number, make_it(unit, advance)
        except StoppedError:
            return unit.number, None
        except BaseException:
            stop.set()
            raise

    return make
