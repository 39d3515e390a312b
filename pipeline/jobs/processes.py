"""Work shared out to local processes, which notice each other's death."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import connection
from typing import Any, Final, TypeVar

from rhostream.errors import RhostreamError

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Items that a worker has at a time: one in work, and the next.
IN_FLIGHT: Final = 2

_work: Callable[[Any], Any]  # of a worker process


def in_processes(
    start: Callable[[int], Callable[[Item], Result]], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """The result of every item, in the order in which they become ready. Items are taken as workers become free.

    Args:
        start: called once in each process with the process's number, gives the function that does one item. It is
            pickled: a function or a partial of a module.
        workers: processes; 0 does all in this one.

    Raises:
        RhostreamError: a worker died. Errors of the function come as they are; what is not yet begun is given up.
        KeyboardInterrupt: at once, by SIGINT or SIGTERM: the workers end, whatever they are doing.
    """
    rest = iter(items)
    first = list(islice(rest, max(1, IN_FLIGHT * workers)))
    if not first:
        return
    if not workers:
        work = start(0)
        for item in chain(first, rest):
            yield work(item)
        return
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(1)  # a worker that runs its parent's script, which has no guard: the parent says so
    # Fresh interpreters: a fork would copy locks of threads that are not there, and CUDA refuses it.
    context = multiprocessing.get_context("spawn")
    count = min(workers, len(first))
    heeds = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN  # a shell's background job ignores Ctrl-C
    numbers, begun = context.SimpleQueue(), context.Event()
    for number in range(count):
        numbers.put(number)
    held, leash = context.Pipe(duplex=False)  # when this end of it is closed, the workers end
    with held, leash, ProcessPoolExecutor(count, context, _begin, (start, numbers, begun, heeds, held)) as pool:
        with _interrupts_ignored():
            pending = {pool.submit(_do, item) for item in first}
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                results = [future.result() for future in done]
                pending |= {pool.submit(_do, item) for item in islice(rest, len(done))}
                yield from results
        except BrokenProcessPool as error:
            if not begun.is_set():
                raise RhostreamError(
                    f"none of {count} worker processes could begin: a script that starts workers must do so below "
                    '`if __name__ == "__main__":`, as each of them imports it; or take workers=0'
                ) from error
            raise RhostreamError(
                f"one of {count} worker processes died (killed, or out of memory): run the same command again, it goes "
                "on where it stopped; with fewer --workers if memory is short"
            ) from error
        except (KeyboardInterrupt, GeneratorExit):  # the second where the signal met the caller
            leash.close()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes spawned within ignore Ctrl-C until they are ready for it, instead of printing a traceback each."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _begin(
    start: Callable[[int], Callable[[Any], Any]], numbers: Any, begun: Any, heeds: bool, held: connection.Connection
) -> None:
    global _work
    begun.set()
    if heeds:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker silently, the parent reports it
    threading.Thread(target=_end_with_parent, args=(held,), daemon=True).start()
    _work = start(numbers.get())


def _end_with_parent(held: connection.Connection) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel, held])
        os._exit(1)


def _do(item: Any) -> Any:
    return _work(item)
