"""What all specs have in common: how a stored field of samples becomes what a model takes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor


class InputSpec(ABC):
    """How one stored field of a sample is read, and what of it a model is given."""

    #: Name of the field: "image" or "text".
    field: ClassVar[str]

    @property
    @abstractmethod
    def values(self) -> int:
        """Numbers that a small model holds of one sample, about: what sizes of batches are reckoned by."""

    @abstractmethod
    def inputs(self, name: str, stored: "Tensor") -> "dict[str, Tensor]":
        """The fields that a model takes, of n samples as they were read under this name, on their device."""

    @abstractmethod
    def joined(self, parts: "Sequence[Tensor]") -> "Tensor":
        """Samples as they were read, one part after the other."""

    @abstractmethod
    def blank(self, count: int) -> npt.NDArray[Any]:
        """Room for so many samples as they are read; a shorter row than its own leaves the rest as it is."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """JSON values, of which `spec_of` makes an equal one."""
