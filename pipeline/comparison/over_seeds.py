"""One figure over several seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median and range.

    Attributes:
        median, lowest, highest: None where it is infinite ("never"), or where no run has the figure.
        known: runs that have a figure.
        of: runs.
    """

    median: float | None
    lowest: float | None
    highest: float | None
    known: int
    of: int


def spread(values: Sequence[float | None]) -> Spread:
    """Over the runs that have a figure; None stands for one that is not known."""
    known = [value for value in values if value is not None]
    return _spread(known, len(known), len(values))


def spread_until(values: Sequence[float | None]) -> Spread:
    """Of what it took until something happened; None stands for never, and counts as infinite."""
    known = sum(value is not None for value in values)
    return _spread([math.inf if value is None else value for value in values], known, len(values))


def _spread(values: Sequence[float], known: int, of: int) -> Spread:
    low, middle, high = (min(values), statistics.median(values), max(values)) if values else (math.inf,) * 3
    finite = [value if math.isfinite(value) else None for value in (low, middle, high)]
    return Spread(lowest=finite[0], median=finite[1], highest=finite[2], known=known, of=of)
