"""Several selection functions under one budget, side by side."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rhostream.errors import ConfigError
from rhostream.loaders.index import CorpusCard
from rhostream.loaders.workspace import Workspace
from rhostream.pipeline.costs import COST_NAMES
from rhostream.pipeline.properties import PASSED_OVER
from rhostream.pipeline.run import Run
from rhostream.pipeline.train import il_table, train
from rhostream.pipeline.train_config import TrainConfig
from rhostream.selection.functions import selection_function

#: Targets where none are given, as shares of the weakest method's best accuracy.
DEFAULT_TARGETS = (0.5, 0.8, 0.9, 1.0)


@dataclass(frozen=True, kw_only=True)
class Reached:
    """When a run first reported a target accuracy; None where it never did.

    Attributes:
        seconds: the run's costs up to then, its share of the IL model included; evaluation, our measuring, is not.
    """

    target: float
    steps: int | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run came to.

    Attributes:
        mislabelled, correct: shares among the selected; None where not known. Over those intervals of the run at whose
            end its accuracy was at most the weakest run's final one, as in the paper (Fig. 3).
        candidates_mislabelled, candidates_correct: the same of the candidates they were chosen from.
        seconds, flops: by cost.
        evaluated_on: the split whose accuracy is given; None where the corpus has none to spare.
        passed_over: candidates that were drawn and not read, by reason.
    """

    run: str
    steps: int
    final_accuracy: float | None
    best_accuracy: float | None
    reached: tuple[Reached, ...]
    mislabelled: float | None
    candidates_mislabelled: float | None
    correct: float | None
    candidates_correct: float | None
    seconds: dict[str, float]
    flops: dict[str, float]
    evaluated_on: str | None
    passed_over: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    workspace: Workspace | str,
    config: TrainConfig,
    functions: Sequence[str],
    *,
    targets: Sequence[float] = (),
    overwrite: bool = False,
) -> tuple[Outcome, ...]:
    """Train once per selection function with the same number of steps, and report the runs side by side.

    Args:
        config: of all runs but for `select`; run names are its name (if any) and the function's, joined by "-".
        targets: accuracies in (0, 1]; shares of the weakest run's best accuracy where empty.
    """
    workspace = Workspace(workspace)
    if len(set(functions)) != len(functions):
        raise ConfigError(f"--compare {','.join(functions)}: each selection function once")
    card = CorpusCard.read(workspace)
    samples = sum(shard.rows for shard in card.split("train"))
    # The budget is that of the method which draws super-batches: the same number of steps for all.
    steps = replace(config, select="train_loss").budget(samples)
    configs = [
        replace(
            config,
            name=f"{config.name}-{name}" if config.name else name,
            select=name,
            steps=steps,
            epochs=0.0,
            candidates=0,
            prefilter=0.0 if selection_function(name).score is None else config.prefilter,
        )
        for name in functions
    ]
    for each in configs:  # what would stop the last run stops the first
        il_table(workspace, card, each)
    return summarise([train(workspace, each, overwrite=overwrite) for each in configs], targets)


def summarise(runs: Sequence[Run], targets: Sequence[float] = ()) -> tuple[Outcome, ...]:
    """The outcomes of finished runs.

    Args:
        targets: as for `compare`.
    """
    finals = [curve[-1] for run in runs if (curve := _accuracies(run))]
    bests = [max(curve) for run in runs if (curve := _accuracies(run))]
    aims = tuple(targets) or (tuple(share * min(bests) for share in DEFAULT_TARGETS) if bests else ())
    return tuple(_outcome(run, aims, min(finals) if finals else None) for run in runs)


def _accuracies(run: Run) -> list[float]:
    return [line["test_accuracy"] for line in run.metrics if line["test_accuracy"] is not None]


def _outcome(run: Run, targets: Sequence[float], weakest: float | None) -> Outcome:
    lines, last = run.metrics, run.metrics[-1]
    curve = _accuracies(run)
    # Redundancy only means something while there is something left to learn.
    early = [line for line in lines if weakest is None or (line["test_accuracy"] or 0.0) <= weakest] or lines
    return Outcome(
        run=run.name,
        steps=last["step"],
        final_accuracy=curve[-1] if curve else None,
        best_accuracy=max(curve) if curve else None,
        reached=tuple(_reached(lines, target) for target in targets),
        mislabelled=_mean(early, "selected_mislabelled", "selected"),
        candidates_mislabelled=_mean(early, "candidates_mislabelled", "candidates"),
        correct=_mean(early, "selected_correct", "selected"),
        candidates_correct=_mean(early, "candidates_correct", "candidates"),
        seconds={cost: last[f"seconds_{cost}"] for cost in COST_NAMES},
        flops={cost: last[f"flops_{cost}"] for cost in COST_NAMES},
        evaluated_on=run.workspace.read_json(f"{run.folder}/run.json")["evaluated_on"],
        passed_over={reason: sum(line[reason] for line in lines) for reason in PASSED_OVER},
    )


def _reached(lines: Sequence[dict[str, Any]], target: float) -> Reached:
    for line in lines:
        if line["test_accuracy"] is not None and line["test_accuracy"] >= target:
            seconds = sum(line[f"seconds_{cost}"] for cost in COST_NAMES if cost != "evaluate")
            return Reached(target=target, steps=line["step"], seconds=seconds)
    return Reached(target=target, steps=None, seconds=None)


def _mean(lines: Sequence[dict[str, Any]], share: str, count: str) -> float | None:
    """The mean of `share` over the lines that know it, weighted by `count`."""
    known = [line for line in lines if line[share] is not None]
    total = sum(line[count] for line in known)
    return sum(line[share] * line[count] for line in known) / total if total else None
