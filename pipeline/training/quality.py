"""What runs are compared by: the test accuracy, or of a multi-label corpus the mean average precision."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

ACCURACY: Final = "accuracy"
MEAN_AVERAGE_PRECISION: Final = "mean average precision"


def quality(line: Mapping[str, Any]) -> float | None:
    """In [0, 1], of a line of `rhostream.schema.METRICS`; None where it has measured none."""
    precision: float | None = line.get("test_map")
    return line["test_accuracy"] if precision is None else precision


def measure(lines: Iterable[Mapping[str, Any]]) -> str:
    """What `quality` is of these lines, in words."""
    return MEAN_AVERAGE_PRECISION if any(line.get("test_map") is not None for line in lines) else ACCURACY
