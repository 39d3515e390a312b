"""`rho train`."""

import importlib
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rhostream.cli.options import (
    Layer,
    command,
    given_settings,
    json_option,
    option,
    settings_options,
    workspace_option,
)
from rhostream.cli.output import say, say_json
from rhostream.pipeline.config import TrainConfig, settings

if TYPE_CHECKING:
    from rhostream.pipeline.comparison import Comparison

MAX_CHART_NAME = 150


@command(
    "rho train --workspace runs/demo --steps 2000",
    "rho train --workspace runs/demo --compare uniform,learnable --targets 0.6,0.7",
    "rho train --workspace runs/demo --compare uniform:batch_size=128,learnable --seeds 0,1,2 --il-runs 10",
    "rho train --workspace runs/demo --model resnet50 --weights resnet50.safetensors --epochs 2",
    "torchrun --nproc-per-node 8 --no-python rho train --workspace runs/demo --batch-size 256 --super-batch-size 2560",
)
@workspace_option
@settings_options(TrainConfig)
@option(
    "--compare",
    group="Comparison",
    metavar="A,B,…",
    help="Run several selection functions under one budget and print the "
    "tables; each may have settings of its own: uniform:batch_size=128:steps=500.",
)
@option(
    "--seeds",
    group="Comparison",
    metavar="A,B,…",
    help="With --compare: run each with every seed, and print median and range.",
)
@option(
    "--plot",
    group="Comparison",
    metavar="FILE",
    help="PNG of accuracy against steps, seconds, CPU-seconds and FLOPs.  [default: with "
    "--compare, comparisons/<names of the variants>.png in the workspace]",
)
@option("--targets", group="Comparison", metavar="X,Y,…", help="Accuracies to report steps and costs to.")
@click.option("--overwrite", is_flag=True, help="Start the run afresh, whatever is there.")
@json_option
def train(
    workspace: str,
    compare: str | None,
    seeds: str | None,
    targets: str | None,
    plot: str | None,
    overwrite: bool,
    as_json: bool,
    **_: Any,
) -> None:
    """Train a model on the candidates that a selection function picks.

    The workspace needs shards (`rho shards`) and, for learnable, rho_loss, irreducible_loss and auto, an IL table
    (`rho il train`, `rho il score`). Under torchrun the processes train one model together, by DDP or `--shard-model`;
    n_b and n_B are those of all. Killed and started again, by any number of processes, a run goes on from its last
    checkpoint and ends as if never killed (but for auto, whose decisions depend on measured time).
    """
    from rhostream.pipeline.jobs import joined

    with joined() as exchange:
        found, plotted = _run(workspace, compare, seeds, targets, plot, overwrite, first=exchange.rank == 0)
        if exchange.rank == 0:
            _print(found, plotted, as_json)


def _run(
    workspace: str,
    compare: str | None,
    seeds: str | None,
    targets: str | None,
    plot: str | None,
    overwrite: bool,
    *,
    first: bool,
) -> "tuple[Comparison, str | None]":
    """The run or the runs, and where their chart was written, by the first process of a job."""
    from rhostream.pipeline.comparison import compare as compare_runs, report
    from rhostream.pipeline.training import train as run_training

    if seeds and not compare:
        raise click.UsageError("--seeds goes with --compare; a single run has --seed")
    if compare or plot:
        _check_plot(plot, workspace)
    config = training_config(workspace)
    aims = _numbers(targets)
    if compare:
        found = compare_runs(
            workspace, config, compare.split(","), seeds=_seeds(seeds), targets=aims, overwrite=overwrite
        )
    else:
        run = run_training(workspace, config, overwrite=overwrite)
        found = report([run.name], [[run]], aims, config.il_runs, config.metric)
    if not first or not (compare or plot):
        return found, None
    return found, _plot(found, workspace, _chart_name(found, config.name, seeds), plot)


def training_config(workspace: str) -> TrainConfig:
    """The settings of the running command over those of the manifest's table [train]."""
    from rhostream.loaders.index import CorpusMetadata
    from rhostream.loaders.storage import Workspace

    corpus = CorpusMetadata.read(Workspace(workspace))
    manifest = ("the manifest's [train] (`rho shards` again takes up its corrections)", corpus.manifest["train"])
    return settings(TrainConfig, *_one_budget((manifest, *given_settings(TrainConfig))))


def _one_budget(layers: tuple[Layer, ...]) -> list[Layer]:
    """A budget in whatever unit replaces those of the layers before it."""
    units = {"steps", "epochs", "candidates"}
    kept: list[Layer] = []
    for where, values in layers:
        if len(units & values.keys()) > 1:
            raise click.UsageError(f"{where}: give the budget in one of {', '.join(sorted(units & values.keys()))}")
        if units & values.keys():
            kept = [(place, {name: old[name] for name in old if name not in units}) for place, old in kept]
        kept.append((where, values))
    return kept


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        numbers = (-1.0,)
    if not all(0 < number <= 1 for number in numbers):
        raise click.BadParameter(f"{text!r} is not a list of shares such as 0.6,0.7", param_hint="--targets")
    return numbers


def _seeds(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 0,1,2", param_hint="--seeds") from None


def _check_plot(file: str | None, workspace: str) -> None:
    """Hours of training must not end in a plot that cannot be drawn or written."""
    from rhostream.loaders.storage import OutputFile

    importlib.import_module("matplotlib")
    if file is None:
        return
    if Path(file).suffix.lower() != ".png":
        raise click.BadParameter(f"{file!r} is not the name of a PNG: end it in .png", param_hint="--plot")
    OutputFile(file, workspace=workspace, option="--plot")


def _chart_name(comparison: "Comparison", name: str, seeds: str | None) -> str:
    """Of what is compared, so that the chart of one comparison does not replace that of another."""
    variants = "+".join(variant.variant.replace("=", "") for variant in comparison.variants)
    parts = (name, variants, f"seeds{seeds}" if seeds else "")
    whole = re.sub(r"[^\w.+-]+", "-", "-".join(filter(None, parts)), flags=re.ASCII)
    return whole if len(whole) <= MAX_CHART_NAME else f"{whole[:MAX_CHART_NAME]}-{zlib.crc32(whole.encode()):08x}"


def _plot(comparison: "Comparison", workspace: str, name: str, file: str | None) -> str | None:
    """Write the chart, to the workspace where no file is named; returns where. None where nothing was evaluated."""
    from rhostream.cli.comparison import il_note
    from rhostream.loaders.storage import OutputFile, Workspace
    from rhostream.pipeline.comparison import accuracy_chart

    bands = [variant.band for variant in comparison.variants]
    if not any(band.steps for band in bands):
        return None
    seeds = max(len(variant.runs) for variant in comparison.variants)
    notes = [il_note(comparison), f"median and range of {seeds} seeds" if seeds > 1 else ""]
    chart = accuracy_chart(bands, comparison.targets, "; ".join(note for note in notes if note), comparison.measure)
    if file is not None:
        OutputFile(file, workspace=workspace, option="--plot").write(chart)
        return file
    stored = f"comparisons/{name}.png"
    Workspace(workspace).write_bytes(stored, chart)
    return Workspace(workspace).path(stored)


def _print(comparison: "Comparison", plotted: str | None, as_json: bool) -> None:
    import pyarrow as pa

    from rhostream.cli.comparison import il_note, tables
    from rhostream.cli.output import print_table

    if as_json:
        say_json(comparison.to_dict() | {"plot": plotted})
        return
    for table in tables(comparison):
        print_table(pa.table(table), "table", None)
        say()
    if note := il_note(comparison):
        say(f"Costs without evaluation; {note}.")
    if plotted:
        say(f"plot: {plotted}", err=True)
