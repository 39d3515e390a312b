"""Threads that work a little ahead of what is asked for."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(read: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`read` of each item, in their order; items are taken, and results held, only some ahead.

    Args:
        threads: that read; twice as many results are held.
    """
    rest = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="rhostream-ahead") as pool:
        pending: deque[Future[Result]] = deque(pool.submit(read, item) for item in islice(rest, 2 * threads))
        try:
            while pending:
                yield pending.popleft().result()
                pending.extend(pool.submit(read, item) for item in islice(rest, 1))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
