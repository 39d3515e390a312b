"""`rho plan`."""

from typing import TYPE_CHECKING, Any

import click

from rhostream.cli.options import command, json_option, option, settings_options, workspace_option
from rhostream.cli.output import print_table, say, say_json
from rhostream.cli.remedies import command as to_type
from rhostream.cli.train import training_config
from rhostream.errors import Remedy, Stage
from rhostream.pipeline.config import TrainConfig

if TYPE_CHECKING:
    from rhostream.pipeline.forecast import Forecast, SelectionForecast


@command(
    "rho plan --workspace runs/demo --model resnet50 --steps 20000",
    "rho plan --workspace runs/demo --il-runs 10 --json",
)
@workspace_option
@settings_options(TrainConfig)
@option(
    "--seconds",
    group="Measuring",
    type=click.FloatRange(min=0.1),
    default=5.0,
    metavar="X",
    help="How long each selection is measured.",
)
@json_option
def plan(workspace: str, seconds: float, as_json: bool, **_: Any) -> None:
    """Tell which selection pays for a training, what it costs and gains, and from how many steps on.

    Takes the options of `rho train`, and a few steps with each selection on a model that is thrown away; the budget is
    that of uniform sampling. What a step costs is measured; what it gains is an estimate from the IL table.
    """
    from rhostream.pipeline.forecast import forecast_selections

    found = forecast_selections(workspace, training_config(workspace), seconds=seconds)
    if as_json:
        say_json(found.to_dict())
        return
    quality = found.quality
    wrong = "" if quality.wrong is None else f", and about {quality.wrong:.0%} of the labels look wrong"
    say(f"IL table {found.il} explains {max(0.0, quality.explained):.0%} of the labels' entropy{wrong}.")
    for warning in quality.warnings:
        say(f"warning: {warning}")
    say()
    _print_selections(found)
    say()
    say(_advice(found, workspace))


def _print_selections(found: "Forecast") -> None:
    import pyarrow as pa

    unit = _UNITS[found.unit]
    rows = [
        {"selection": each.name}
        | {f"{name}_ms": 1000 * getattr(each.step, found.unit)[name] for name in ("load", "score", "train")}
        | {"steps": round(each.steps), unit: each.cost, "of_uniform": each.cost / found.uniform.cost}
        for each in found.selections
    ]
    print_table(pa.Table.from_pylist(rows), "table")
    say()
    say(
        "selection: its batch size, and the share of the scored that it trains on. "
        f"load, score, train: of a step. steps, {unit}: to what {found.uniform.name} reaches in {found.steps} steps, "
        f"the {found.il_cost:.0f} s of the IL table included where it is used."
    )


def _advice(found: "Forecast", workspace: str) -> str:
    best, unit = found.best, _UNITS[found.unit]
    if found.quality.weak:
        pays = f"{best.name} is the cheapest that does not choose by the IL table"
    elif best.pays_from is None or best.name == found.base:
        pays = f"{best.name} is the cheapest: no other selection saves what it costs"
    else:
        pays = f"{best.name} takes {best.cost / found.uniform.cost:.2f} of the {unit} of {found.base}"
    later = [each for each in found.selections if each.pays_from is not None and each.pays_from > found.steps]
    if later:
        first = min(later, key=lambda each: each.pays_from or 0.0)
        pays += f"; {first.name} pays from {first.pays_from:.0f} steps on"
    return f"{pays}.\n{_command(best, workspace)}"


def _command(chosen: "SelectionForecast", workspace: str) -> str:
    settings = {name.replace("_", "-"): str(value) for name, value in chosen.settings.items()}
    return to_type(Remedy(Stage.TRAIN, workspace, settings))


_UNITS = {"seconds": "seconds", "cpu_seconds": "CPU-seconds"}
