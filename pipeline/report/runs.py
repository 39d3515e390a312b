"""What the training runs of a workspace measured and cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from rhostream.errors import ConfigError, Remedy, Stage
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import Metric
from rhostream.pipeline.jobs import read_run_facts
from rhostream.pipeline.training import measure, quality, require_measured
from rhostream.schema import COSTS

Unit = Literal["steps", "seconds", "flops"]
UNITS: Final[tuple[Unit, ...]] = ("steps", "seconds", "flops")

#: Evaluation is our measuring; all the rest is charged.
CHARGED: Final = tuple(name for name in COSTS if name != "evaluate")


@dataclass(frozen=True, kw_only=True)
class ReportedRun:
    """A run as the report shows it.

    Attributes:
        select: name of its selection function; "" where another trainer wrote the ledger.
        il: name of the IL table it joined, or None.
        evaluated_on: the split of its accuracies, or None; of a multi-label corpus these are mean average precisions.
        lines: of `rhostream.schema.METRICS`, by step.
        metric: what accuracy is, see `TrainConfig`.
    """

    name: str
    select: str
    il: str | None
    evaluated_on: str | None
    lines: tuple[dict[str, Any], ...]
    metric: Metric

    @property
    def curve(self) -> list[dict[str, Any]]:
        """The lines with an accuracy."""
        return [line for line in self.lines if self.quality(line) is not None]

    @property
    def accuracies(self) -> list[float]:
        """Of the curve."""
        return [found for line in self.lines if (found := self.quality(line)) is not None]

    def quality(self, line: Mapping[str, Any]) -> float | None:
        """The accuracy that a line tells; None where it was not measured."""
        return quality(line, self.metric)

    @property
    def best_accuracy(self) -> float:
        return max(self.accuracies)

    @property
    def steps(self) -> int:
        return int(self.lines[-1]["step"]) if self.lines else 0

    def first_reaching(self, accuracy: float) -> dict[str, Any] | None:
        reached = zip(self.curve, self.accuracies, strict=True)
        return next((line for line, found in reached if found >= accuracy), None)


def spent(line: dict[str, Any], unit: Unit) -> float:
    """What a run had spent by this line of its metrics: steps, or seconds or FLOPs of all that is charged."""
    if unit == "steps":
        return float(line["step"])
    return sum(line[f"{unit}_{cost}"] or 0.0 for cost in CHARGED)


def measure_of(runs: Sequence[ReportedRun]) -> str:
    """What the accuracy of these runs is, in words."""
    return measure((line for run in runs for line in run.lines), runs[0].metric)


def reported_runs(
    workspace: Workspace, names: Sequence[str], lines: Sequence[dict[str, Any]], metric: Metric
) -> list[ReportedRun]:
    """The runs of these names, in this order; without names all runs of the workspace.

    Args:
        lines: of the view `metrics`, of all runs, in the order of the steps.
        metric: what accuracy is, see `TrainConfig`.

    Raises:
        ConfigError: no such run, or one that was never evaluated by the metric.
    """
    known = [
        name
        for name in workspace.names("runs")
        if workspace.names(f"runs/{name}/ledger", ".parquet") or workspace.exists(f"runs/{name}/metrics.jsonl")
    ]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"--run {name}: workspace {workspace.location!r} has no such run (there are: "
                f"{', '.join(known) or 'none'}); name one of these, or",
                Remedy(Stage.TRAIN, workspace.location, {"name": name}),
            )
    return [_run(workspace, name, lines, metric) for name in dict.fromkeys(names or known)]


def _run(workspace: Workspace, name: str, lines: Sequence[dict[str, Any]], metric: Metric) -> ReportedRun:
    facts = read_run_facts(workspace, name)
    own = tuple(line for line in lines if line["run"] == name and line["step"] is not None)
    require_measured(name, own, metric)
    return ReportedRun(
        name=name,
        select=facts.get("config", {}).get("select", ""),
        il=facts.get("il"),
        evaluated_on=facts.get("evaluated_on"),
        lines=own,
        metric=metric,
    )
