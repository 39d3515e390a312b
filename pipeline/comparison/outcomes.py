"""What finished runs came to, under targets that they share."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rhostream.pipeline.comparison.curves import charged
from rhostream.pipeline.config import Metric
from rhostream.pipeline.jobs import read_run_facts
from rhostream.pipeline.models import COST_NAMES
from rhostream.pipeline.training import PASSED_OVER, Run, measure, qualities, quality, require_measured
from rhostream.schema import COST_UNITS

#: Targets where none are given, as shares of the weakest run's best accuracy.
DEFAULT_TARGETS = (0.5, 0.8, 0.9, 1.0)


@dataclass(frozen=True, kw_only=True)
class Reached:
    """When a run first reported a target accuracy; None where it never did.

    Attributes:
        seen, trained: samples that were candidates, and those that were trained on; one that came twice counts twice.
        seconds, cpu_seconds, flops: the run's costs up to then, its share of the IL model included; evaluation, our
            measuring, is not.
        seconds_whole_il, cpu_seconds_whole_il, flops_whole_il: the same, charged with the whole IL model.
    """

    target: float
    steps: int | None = None
    seen: int | None = None
    trained: int | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    flops: float | None = None
    seconds_whole_il: float | None = None
    cpu_seconds_whole_il: float | None = None
    flops_whole_il: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run came to.

    Attributes:
        seen, trained: samples that were candidates, and those that were trained on; one that came twice counts twice.
        mislabeled, correct: shares among the selected, over the whole run; None where not known.
        candidates_mislabeled, candidates_correct: the same of the candidates that they were chosen from.
        early_correct, early_candidates_correct: over those intervals at whose end the run's accuracy was at most
            `early`, the weakest run's final one, as in the paper (Fig. 3): redundancy only means something while there
            is something left to learn.
        measure: what "accuracy" is in all of these: the test accuracy, the metric that was asked for, or of a
            multi-label corpus the mean average precision.
        final_qualities: all that was measured in the end, by the words of `measure`.
        seconds, cpu_seconds, flops: by cost.
        il_runs: how many runs share the IL model in these figures.
        evaluated_on: the split whose accuracy is given; None where the corpus has none to spare.
        passed_over: candidates that were drawn and not read, by reason.
    """

    run: str
    seed: int
    steps: int
    measure: str
    final_accuracy: float | None
    best_accuracy: float | None
    final_qualities: dict[str, float]
    reached: tuple[Reached, ...]
    seen: int
    trained: int
    mislabeled: float | None
    candidates_mislabeled: float | None
    correct: float | None
    candidates_correct: float | None
    early: float | None
    early_correct: float | None
    early_candidates_correct: float | None
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    flops: dict[str, float]
    il_runs: int
    evaluated_on: str | None
    passed_over: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarize(
    runs: Sequence[Run], targets: Sequence[float] = (), *, il_runs: int | None = None, metric: Metric = "auto"
) -> tuple[Outcome, ...]:
    """The outcomes of finished runs.

    Args:
        targets: accuracies in (0, 1]; shares of the weakest run's best accuracy where empty.
        il_runs: runs that share the IL model; None for as many as each run was charged for.
        metric: what accuracy is, see `TrainConfig`.

    Raises:
        ConfigError: a run was never evaluated by the metric.
    """
    for run in runs:
        require_measured(run.name, run.metrics, metric)
    curves = [curve for run in runs if (curve := _accuracies(run, metric))]
    finals, bests = [curve[-1] for curve in curves], [max(curve) for curve in curves]
    aims = tuple(targets) or (_default_targets(min(bests)) if bests else ())
    return tuple(_outcome(run, aims, min(finals) if finals else None, il_runs, metric) for run in runs)


def _default_targets(best: float) -> tuple[float, ...]:
    """Whole percentages, but for the best itself."""
    rounded = (math.floor(100 * share * best) / 100 for share in DEFAULT_TARGETS if share < 1)
    return tuple(dict.fromkeys((*(target for target in rounded if target > 0), best)))


def _accuracies(run: Run, metric: Metric) -> list[float]:
    return [found for line in run.metrics if (found := quality(line, metric)) is not None]


def _outcome(run: Run, targets: Sequence[float], weakest: float | None, il_runs: int | None, metric: Metric) -> Outcome:
    lines, last = run.metrics, run.metrics[-1]
    curve = _accuracies(run, metric)
    early = [line for line in lines if weakest is None or (quality(line, metric) or 0.0) <= weakest] or lines
    facts = read_run_facts(run.workspace, run.name)
    runs = last["il_runs"] if il_runs is None else il_runs
    costs = {
        unit: {
            cost: last[f"{unit}_{cost}"] * (last["il_runs"] / runs if cost.startswith("il_") else 1)
            for cost in COST_NAMES
        }
        for unit in COST_UNITS
    }
    return Outcome(
        run=run.name,
        seed=facts["config"]["seed"],
        steps=last["step"],
        measure=measure(lines, metric),
        final_accuracy=curve[-1] if curve else None,
        best_accuracy=max(curve) if curve else None,
        final_qualities=qualities(last),
        reached=tuple(_reached(lines, target, runs, metric) for target in targets),
        seen=_sum(lines, "candidates"),
        trained=_sum(lines, "selected"),
        mislabeled=_mean(lines, "selected_mislabeled", "selected"),
        candidates_mislabeled=_mean(lines, "candidates_mislabeled", "candidates"),
        correct=_mean(lines, "selected_correct", "selected"),
        candidates_correct=_mean(lines, "candidates_correct", "candidates"),
        early=weakest,
        early_correct=_mean(early, "selected_correct", "selected"),
        early_candidates_correct=_mean(early, "candidates_correct", "candidates"),
        **costs,
        il_runs=runs,
        evaluated_on=facts["evaluated_on"],
        passed_over={reason: sum(line[reason] for line in lines) for reason in PASSED_OVER},
    )


def _reached(lines: Sequence[dict[str, Any]], target: float, il_runs: int, metric: Metric) -> Reached:
    for place, line in enumerate(lines, 1):
        if (found := quality(line, metric)) is not None and found >= target:
            until = lines[:place]
            costs = {unit: charged(line, unit, il_runs) for unit in COST_UNITS}
            whole = {f"{unit}_whole_il": charged(line, unit, 1) for unit in COST_UNITS}
            seen, trained = _sum(until, "candidates"), _sum(until, "selected")
            return Reached(target=target, steps=line["step"], seen=seen, trained=trained, **costs, **whole)
    return Reached(target=target)


def _sum(lines: Sequence[dict[str, Any]], count: str) -> int:
    return sum(line[count] or 0 for line in lines)


def _mean(lines: Sequence[dict[str, Any]], share: str, count: str) -> float | None:
    """The mean of `share` over the lines that know it, weighted by `count`."""
    known = [line for line in lines if line[share] is not None]
    total = sum(line[count] for line in known)
    return sum(line[share] * line[count] for line in known) / total if total else None
