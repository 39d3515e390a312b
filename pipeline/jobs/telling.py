"""Who tells why a job of several processes ends: one of them, so that it is one line."""

from collections.abc import Callable

from rhostream.errors import OtherRankError

#: Of the job that this process is in: is it the first that has something to tell? None without a job.
_first: list[Callable[[], bool]] = []


def tells_if(first: Callable[[], bool] | None) -> None:
    """Set who is to be asked, or nobody."""
    _first[:] = [] if first is None else [first]


def another_tells(error: BaseException | None = None) -> bool:
    """Does another process of the job tell why it ends? Asked once, by one that has something to tell."""
    if isinstance(error, OtherRankError):
        return True
    return not all(first() for first in _first)
