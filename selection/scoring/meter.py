"""Where a selector reports what it costs."""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

Result = TypeVar("Result")


class Meter(Protocol):
    """Charges seconds and FLOPs to named costs ("load", "score", …)."""

    def charge(self, cost: str) -> AbstractContextManager[None]:
        """The block's seconds go to `cost`."""
        ...

    def flops(self, cost: str, shape: Hashable, function: Callable[[], Result]) -> Result:
        """Run `function`, charge its FLOPs; calls of one shape cost the same, so that one of them is counted."""
        ...


class NoMeter:
    """For trainers that keep their own accounts."""

    def charge(self, cost: str) -> AbstractContextManager[None]:
        return nullcontext()

    def flops(self, cost: str, shape: Hashable, function: Callable[[], Result]) -> Result:
        return function()
