"""What runs are compared by: the accuracy, the Matthews correlation or F1, the mean average precision (multi-label), or
the recall (pairs)."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rhostream.errors import ConfigError
from rhostream.pipeline.config import Metric

_RECALL: Final = "recall@10"  # which stands as the accuracy of pairs

#: Columns of `rhostream.schema.METRICS`, and what they are in words; the first that is measured counts, unless a metric
#: says otherwise.
_WORDS: Final = {
    "test_map": "mean average precision",
    "test_accuracy": "accuracy",
    "test_mcc": "Matthews correlation",
    "test_f1": "macro F1",
    "test_zero_shot": "zero-shot accuracy",
}
_COLUMNS: Final[dict[Metric, str]] = {
    "accuracy": "test_accuracy",
    "mcc": "test_mcc",
    "f1": "test_f1",
    "zero_shot": "test_zero_shot",
}


def quality(line: Mapping[str, Any], metric: Metric = "auto") -> float | None:
    """Of a line of `rhostream.schema.METRICS`, in [0, 1] but for the Matthews correlation; None where not measured."""
    found: float | None = line.get(_column(line, metric))
    return found


def require_measured(run: str, lines: Iterable[Mapping[str, Any]], metric: Metric) -> None:
    """Raises ConfigError where a run was evaluated, but never by this metric."""
    evaluated = [line for line in lines if quality(line) is not None]
    if evaluated and all(quality(line, metric) is None for line in evaluated):
        raise ConfigError(
            f"metric {metric!r}: run {run!r} has measured {', '.join(qualities(evaluated[-1]))} alone; choose auto, or "
            "other runs"
        )


def measure(lines: Iterable[Mapping[str, Any]], metric: Metric = "auto") -> str:
    """What `quality` is of these lines, in words."""
    for line in lines:
        if line.get(_column(line, metric)) is not None:
            return _words(line, _column(line, metric))
    return _WORDS[_COLUMNS.get(metric, "test_accuracy")]


def qualities(line: Mapping[str, Any]) -> dict[str, float]:
    """All that a line could be compared by, by its words."""
    return {_words(line, column): line[column] for column in _WORDS if line.get(column) is not None}


def _column(line: Mapping[str, Any], metric: Metric) -> str:
    return _COLUMNS.get(metric) or next((each for each in _WORDS if line.get(each) is not None), "test_accuracy")


def _words(line: Mapping[str, Any], column: str) -> str:
    is_recall = column == "test_accuracy" and line.get("image_to_text_r10") is not None
    return _RECALL if is_recall else _WORDS[column]
