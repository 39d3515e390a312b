"""What makes the units of a stage, in whichever process."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from rhostream.loaders.storage import Workspace


class Numbered(Protocol):
    """A unit of work."""

    @property
    def number(self) -> int: ...


UnitOf = TypeVar("UnitOf", bound=Numbered)
RecordOf = TypeVar("RecordOf")

#: Told how much was done since the last call.
Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Maker(ABC, Generic[UnitOf, RecordOf]):
    """Makes units, the same bytes wherever it runs. It is pickled to the workers; so are units and records.

    Attributes:
        workspace: that it writes to.
    """

    workspace: Workspace

    @property
    @abstractmethod
    def folder(self) -> str:
        """Of the workspace (or a file of it), held by the workers as long as they live, see `hold_as_worker`."""

    @property
    def gpus(self) -> int:
        """How many GPUs a worker can use."""
        return 0

    def begin(self, number: int) -> Callable[[UnitOf, Advance], RecordOf]:
        """Called once in each worker, with the worker's number: what makes the units there."""
        return self

    @abstractmethod
    def __call__(self, unit: UnitOf, advance: Advance, /) -> RecordOf:
        """Write a unit, and tell what became of it."""


class StoppedError(Exception):
    """Another unit has failed: leave this one unfinished. `Advance` raises it."""
