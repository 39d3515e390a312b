"""What runs are compared by: the test accuracy, the mean average precision (multi-label), or the recall (pairs)."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

ACCURACY: Final = "accuracy"
MEAN_AVERAGE_PRECISION: Final = "mean average precision"
RECALL: Final = "recall@10"


def quality(line: Mapping[str, Any]) -> float | None:
    """In [0, 1], of a line of `rhostream.schema.METRICS`; None where it has measured none."""
    precision: float | None = line.get("test_map")
    return line["test_accuracy"] if precision is None else precision


def measure(lines: Iterable[Mapping[str, Any]]) -> str:
    """What `quality` is of these lines, in words."""
    for line in lines:
        for column, words in (("test_map", MEAN_AVERAGE_PRECISION), ("image_to_text_r10", RECALL)):
            if line.get(column) is not None:
                return words
    return ACCURACY
