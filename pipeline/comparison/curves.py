"""Accuracy (see `rhostream.pipeline.training.quality`) against its costs: behind tables, plots and reports."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rhostream.pipeline.config import Metric
from rhostream.pipeline.training import quality
from rhostream.schema import COST_UNITS, COSTS


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The evaluations of one run; all columns are of equal length, in order of steps.

    Attributes:
        costs: by unit (`rhostream.schema.COST_UNITS`): all that was charged up to the step, see `charged`.
    """

    steps: tuple[int, ...]
    costs: Mapping[str, tuple[float, ...]]
    accuracy: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Band:
    """The curves of several seeds: the median of each column at each step, and the range of the accuracies."""

    name: str
    steps: tuple[int, ...]
    costs: Mapping[str, tuple[float, ...]]
    accuracy: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]


def charged(line: Mapping[str, Any], unit: str, il_runs: int | None = None) -> float:
    """All that a run had cost when it wrote a line of metrics, in one unit.

    Evaluation, which is our measuring, is left out.

    Args:
        line: with the columns of `rhostream.schema.METRICS`.
        il_runs: runs that share the IL model; None for as many as the run was charged for, 1 charges the whole of it.
    """
    share = 1.0 if il_runs is None else line["il_runs"] / il_runs
    own = sum(line[f"{unit}_{cost}"] for cost in COSTS if cost != "evaluate" and not cost.startswith("il_"))
    return float(own + share * (line[f"{unit}_il_train"] + line[f"{unit}_il_score"]))


def curve(lines: Iterable[Mapping[str, Any]], il_runs: int | None = None, metric: Metric = "auto") -> Curve:
    """Of the lines of metrics of one run; those that were not evaluated are passed over.

    Args:
        il_runs: as for `charged`.
        metric: what the accuracy is, see `TrainConfig`.
    """
    measured = [(line, found) for line in lines if (found := quality(line, metric)) is not None]
    evaluated = [line for line, _ in measured]
    return Curve(
        steps=tuple(line["step"] for line in evaluated),
        costs={unit: tuple(charged(line, unit, il_runs) for line in evaluated) for unit in COST_UNITS},
        accuracy=tuple(found for _, found in measured),
    )


def band(name: str, curves: Sequence[Curve]) -> Band:
    """Of runs that differ in their seed only; the steps that all of them have."""
    steps = sorted(set.intersection(*(set(each.steps) for each in curves))) if curves else []
    places = [[each.steps.index(step) for step in steps] for each in curves]
    accuracies = _columns([each.accuracy for each in curves], places)
    return Band(
        name=name,
        steps=tuple(steps),
        costs={
            unit: tuple(map(statistics.median, _columns([each.costs[unit] for each in curves], places)))
            for unit in COST_UNITS
        },
        accuracy=tuple(map(statistics.median, accuracies)),
        lowest=tuple(map(min, accuracies)),
        highest=tuple(map(max, accuracies)),
    )


def _columns(values: Sequence[Sequence[float]], places: Sequence[Sequence[int]]) -> list[tuple[float, ...]]:
    """Of each step the values of all curves."""
    return list(zip(*([row[place] for place in at] for row, at in zip(values, places, strict=True)), strict=True))
