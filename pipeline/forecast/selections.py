"""`rho plan`: which selection pays for this model on this machine and corpus, and from how many steps on.

What a step costs is measured. What it gains is an estimate from what the IL table tells of the corpus, the one that
`auto` begins with (`rhostream.selection.policies.arms`). benchmarks/unseen.py keeps what came of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from rhostream.errors import ConfigError, Remedy, Stage
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import TrainConfig
from rhostream.pipeline.il import ILQuality, il_costs, trained_models
from rhostream.pipeline.jobs import progress
from rhostream.pipeline.models import has_bfloat16_tiles
from rhostream.pipeline.training import StepCost, measure_step, plan_training, untrained_model
from rhostream.selection.policies import Arm, usual_arms

_LEAST_ERROR: Final = 0.05  # of the learner where the comparison is made


@dataclass(frozen=True, kw_only=True)
class SelectionForecast:
    """What a selection is expected to come to.

    Attributes:
        name: as `auto` calls it.
        settings: of `rho train`, by name, that ask for it.
        step: what a gradient step costs.
        steps: gradient steps to the accuracy that uniform sampling of n_b reaches with the budget.
        cost: of these steps, in the unit of the forecast, the IL table's share included where it is needed.
        pays_from: steps of that uniform sampling, from which on the selection costs no more than it; None for never.
    """

    name: str
    settings: dict[str, Any]
    step: StepCost
    steps: float
    cost: float
    pays_from: float | None


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What there is to choose from, the cheapest first; where the IL table is too weak, uniform sampling alone.

    Attributes:
        unit: "seconds" of a GPU, "cpu_seconds" where the model trains on the CPU.
        steps: the budget of uniform sampling that all are compared with.
        il: name of the IL table.
        il_cost: this run's share of what the table cost, in `unit`; 0 of a table that was made elsewhere.
        quality: what the table tells of the corpus.
        base: the selection that the others are compared with, uniform sampling of n_b, by name.
    """

    unit: str
    steps: int
    il: str
    il_cost: float
    quality: ILQuality
    base: str
    selections: tuple[SelectionForecast, ...]

    @property
    def best(self) -> SelectionForecast:
        return self.selections[0]

    @property
    def uniform(self) -> SelectionForecast:
        return next(each for each in self.selections if each.name == self.base)

    def to_dict(self) -> dict[str, Any]:
        """What `rho plan --json` prints."""
        return asdict(self) | {"best": self.best.name}


def forecast_selections(workspace: Workspace | str, config: TrainConfig, *, seconds: float = 5.0) -> Forecast:
    """Take some steps with every selection that `auto` would choose from, and say what a training by each comes to.

    Args:
        config: of the training that is planned; its selection is what is asked for, its budget that of uniform
            sampling.
        seconds: to measure each selection for.

    Raises:
        ConfigError: the settings do not fit the workspace, it has no IL table, or one that does not tell what its
            model predicts.
    """
    workspace = Workspace(workspace)
    if CorpusMetadata.read(workspace).task == "pairs":
        raise ConfigError(
            "a plan for image-text pairs: what selecting them gains does not follow from the reference table; train a "
            "few hundred steps with `--compare uniform,learnability,jest`"
        )
    config = replace(config, select="learnable", replay="", handover=None)
    if not config.il and not trained_models(workspace):
        raise ConfigError(
            f"workspace {workspace.location!r} has no IL table, which says what selecting can gain",
            Remedy(Stage.IL_TRAIN, workspace.location),
            Remedy(Stage.IL_SCORE, workspace.location),
        )
    plan = plan_training(workspace, config)
    assert plan.il is not None, "learnable needs one"
    quality = plan.quality
    if quality is None:
        raise ConfigError(
            f"a plan with IL table {plan.il!r}, which does not tell the one class that its model predicts for each "
            "sample: compare runs with `--compare`"
        )
    untrained_model(plan)  # a model that cannot be built is told before anything is measured
    unit = "seconds" if plan.device.type == "cuda" else "cpu_seconds"
    spent = il_costs(workspace, plan.il)[unit] if plan.il in trained_models(workspace) else {}
    il_cost = sum(spent.values()) / config.il_runs
    wrong = quality.ruled_out / 2 if quality.wrong is None else quality.wrong
    arms = usual_arms(
        config.batch_size, plan.most_candidates(quality), quality.ruled_out, wrong, filters=quality.filters
    )
    if quality.weak:  # what it calls wrong, and so what choosing by it would gain, says nothing
        arms = {name: arm for name, arm in arms.items() if not _needs_il(arm)}
    settings = {name: _settings(arm) for name, arm in arms.items()}
    if config.score_precision == "auto" and has_bfloat16_tiles(plan.device):
        for name in (name for name, arm in arms.items() if arm.selection.scores):
            settings[name]["score_precision"] = "bfloat16"
    error = max(_LEAST_ERROR, quality.error)  # late: as few as the IL model makes
    costs = dict(_measured(workspace, config, settings, seconds))
    base = next(name for name, arm in arms.items() if not _needs_il(arm))  # the smallest batches come first
    base_step = _total(costs[base], unit)
    found = []
    for name, arm in arms.items():
        steps = arms[base].expected(error) / arm.expected(error)  # for one of uniform sampling
        charged = il_cost if _needs_il(arm) else 0.0
        step = steps * _total(costs[name], unit)
        found.append(
            SelectionForecast(
                name=name,
                settings=settings[name],
                step=costs[name],
                steps=plan.steps * steps,
                cost=charged + plan.steps * step,
                pays_from=charged / (base_step - step) if step < base_step else None,
            )
        )
    return Forecast(
        unit=unit,
        steps=plan.steps,
        il=plan.il,
        il_cost=il_cost,
        quality=quality,
        base=base,
        selections=tuple(sorted(found, key=lambda each: each.cost)),
    )


def _measured(
    workspace: Workspace, config: TrainConfig, settings: Mapping[str, dict[str, Any]], seconds: float
) -> Iterator[tuple[str, StepCost]]:
    with progress("plan", len(settings), "selections") as reporter:
        for name, given in settings.items():
            plan = plan_training(workspace, config.with_selection(**given))
            yield name, measure_step(plan, seconds=seconds)
            reporter.advance(note=name)


def _settings(arm: Arm) -> dict[str, Any]:
    """Of a `TrainConfig` that asks for an arm."""
    selection = arm.selection
    found: dict[str, Any] = {"select": selection.function, "batch_size": selection.batch_size}
    if selection.scores:
        found["super_batch_size"] = round(arm.candidates)
    if selection.prefilter:
        found["prefilter"] = "auto"
    return found


def _needs_il(arm: Arm) -> bool:
    return arm.selection.scores or arm.selection.prefilter


def _total(step: StepCost, unit: str) -> float:
    values: dict[str, float] = getattr(step, unit)
    return sum(values.values())
