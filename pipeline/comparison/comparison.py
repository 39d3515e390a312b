"""Several ways of selecting under one budget, side by side."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from rhostream.errors import ConfigError
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.comparison.curves import Band, band, curve
from rhostream.pipeline.comparison.outcomes import Outcome, Reached, summarize
from rhostream.pipeline.comparison.over_seeds import Spread, spread, spread_until
from rhostream.pipeline.comparison.variants import parse_variant
from rhostream.pipeline.config import Metric, TrainConfig
from rhostream.pipeline.training import Run, TrainPlan, follow, plan_training, steps_of, untrained_model


@dataclass(frozen=True, kw_only=True)
class VariantOutcome:
    """What the runs of a variant came to, one a seed.

    Attributes:
        reached: by target accuracy, each figure of `Reached` over the seeds.
        band: of the runs' curves.
    """

    variant: str
    runs: tuple[Outcome, ...]
    final_accuracy: Spread
    reached: dict[float, dict[str, Spread]]
    band: Band


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `compare` found, or what one run came to.

    Attributes:
        targets: accuracies.
        il_runs: how many runs share the IL model in all figures that do not say "whole_il".
    """

    targets: tuple[float, ...]
    il_runs: int
    variants: tuple[VariantOutcome, ...]

    @property
    def measure(self) -> str:
        """What "accuracy" is, in words."""
        return self.variants[0].runs[0].measure

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; a figure that is never reached is null."""
        variants = [
            {
                "variant": each.variant,
                "runs": [outcome.to_dict() for outcome in each.runs],
                "final_accuracy": asdict(each.final_accuracy),
                "reached": [
                    {"target": target} | {name: asdict(figure) for name, figure in figures.items()}
                    for target, figures in each.reached.items()
                ],
            }
            for each in self.variants
        ]
        return {"targets": list(self.targets), "il_runs": self.il_runs, "variants": variants}


def compare(
    workspace: Workspace | str,
    config: TrainConfig,
    variants: Sequence[str],
    *,
    seeds: Sequence[int] = (),
    targets: Sequence[float] = (),
    overwrite: bool = False,
) -> Comparison:
    """Train every variant, and report the runs side by side. Runs that are there already are taken up.

    All take the same number of gradient steps, and their learning rates end with them, but for variants that say
    otherwise ("uniform:batch_size=128:steps=500").

    Args:
        config: of all runs, but for what a variant sets; run names are its name (if any), the variant's, and the seed's
            (where there are several), joined by "-".
        variants: as for `rhostream.pipeline.comparison.variants.parse_variant`.
        seeds: every variant is trained once with each; the one of `config` where empty.
        targets: as for `rhostream.pipeline.comparison.outcomes.summarize`.

    Raises:
        ConfigError: a variant that is none, or whose model, weights, device, IL table or thumbnails will not do:
            before the first run.
    """
    if config.replay:
        raise ConfigError(f"replay {config.replay!r} in a comparison: a replay selects nothing; run it on its own")
    workspace = Workspace(workspace)
    corpus = CorpusMetadata.read(workspace)
    plans = [
        [_planned(workspace, text, each) for each in row]
        for text, row in zip(variants, _configs(config, variants, seeds, corpus), strict=True)
    ]
    for first, *_ in plans:  # what would stop the last run stops the first; seeds change none of it
        untrained_model(first)
    # Seed by seed: what changes on the machine over hours falls on all variants alike.
    done = [[follow(plan, overwrite=overwrite) for plan in column] for column in zip(*plans, strict=True)]
    names, runs = [text.strip() for text in variants], list(zip(*done, strict=True))
    return report(names, runs, targets, config.il_runs, config.metric)


def report(
    names: Sequence[str],
    runs: Sequence[Sequence[Run]],
    targets: Sequence[float],
    il_runs: int,
    metric: Metric = "auto",
) -> Comparison:
    """The finished runs of each name, side by side.

    Args:
        targets: as for `rhostream.pipeline.comparison.outcomes.summarize`.
        il_runs: runs that share the IL model, whatever the runs were charged for.
        metric: what accuracy is in all figures, see `TrainConfig`.
    """
    outcomes = iter(summarize([run for row in runs for run in row], targets, il_runs=il_runs, metric=metric))
    found = [
        _variant(name, row, tuple(next(outcomes) for _ in row), il_runs, metric)
        for name, row in zip(names, runs, strict=True)
    ]
    return Comparison(targets=tuple(found[0].reached), il_runs=il_runs, variants=tuple(found))


def _planned(workspace: Workspace, variant: str, config: TrainConfig) -> TrainPlan:
    try:
        return plan_training(workspace, config)
    except ConfigError as error:
        raise ConfigError(f"variant {variant.strip()!r}: {error}") from error


def _configs(
    config: TrainConfig, variants: Sequence[str], seeds: Sequence[int], corpus: CorpusMetadata
) -> list[list[TrainConfig]]:
    """The runs: a row a variant, a column a seed."""
    parsed = [parse_variant(text) for text in variants]
    names = [variant.file_name for variant in parsed]
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"--compare {','.join(variants)}: each variant once")
    if len(set(seeds)) != len(seeds):
        raise ConfigError(f"--seeds {','.join(map(str, seeds))}: each seed once")
    if seeds and (own := [variant.text for variant in parsed if "seed" in variant.settings]):
        raise ConfigError(f"variant {own[0]!r} has a seed of its own: leave out that, or --seeds")
    # The budget is that of the method which draws super-batches: the same number of steps for all.
    samples = corpus.split("train").samples
    steps = steps_of(replace(config, select="train_loss"), samples)
    rows = []
    for variant in parsed:
        own_config = variant.config(config, steps)
        name = "-".join(part for part in (config.name, variant.file_name) if part)
        rows.append(
            [replace(own_config, name=f"{name}-seed{seed}", seed=seed) for seed in seeds]
            if seeds
            else [replace(own_config, name=name)]
        )
    return rows


def _variant(
    name: str, runs: Sequence[Run], outcomes: tuple[Outcome, ...], il_runs: int, metric: Metric
) -> VariantOutcome:
    figures = [field.name for field in fields(Reached) if field.name != "target"]
    reached = {
        first.target: {
            figure: spread_until([getattr(outcome.reached[place], figure) for outcome in outcomes])
            for figure in figures
        }
        for place, first in enumerate(outcomes[0].reached)
    }
    return VariantOutcome(
        variant=name,
        runs=outcomes,
        final_accuracy=spread([outcome.final_accuracy for outcome in outcomes]),
        reached=reached,
        band=band(name, [curve(run.metrics, il_runs, metric) for run in runs]),
    )
