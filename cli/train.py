"""`rho train`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rhostream.cli.options import device_option, examples, given, json_option, option, workspace_option

if TYPE_CHECKING:
    Layer = tuple[str, dict[str, Any]]

    from rhostream.pipeline.comparison import Comparison

_SETTINGS = (
    "name",
    "il",
    "model",
    "weights",
    "select",
    "batch_size",
    "super_batch_size",
    "steps",
    "epochs",
    "candidates",
    "learning_rate",
    "weight_decay",
    "schedule",
    "image_size",
    "augmentation",
    "batchnorm",
    "thumbnails",
    "score_ahead",
    "core_set",
    "share",
    "rule",
    "temperature",
    "class_floor",
    "score_floor",
    "score_age",
    "score_precision",
    "score_size",
    "score_compile",
    "proxy",
    "live_il",
    "prefilter",
    "on_missing",
    "evaluate_every",
    "evaluate_at_most",
    "il_runs",
    "seed",
    "device",
    "precision",
    "threads",
    "workers",
    "tensorboard",
    "wandb",
)


@click.command(
    epilog=examples(
        "rho train --workspace runs/demo --select rho_loss --steps 2000",
        "rho train --workspace runs/demo --compare uniform,rho_loss --targets 0.6,0.7",
        "rho train --workspace runs/demo --compare uniform:batch_size=128,rho_loss --seeds 0,1,2 --il-runs 10",
        "rho train --workspace runs/demo --model resnet50 --weights resnet50.safetensors --epochs 2",
    )
)
@workspace_option
@option("--name", metavar="RUN", help="Name of the run.  [default: the selection function's]")
@option("--il", metavar="NAME", help="IL table, or a Parquet file with columns key and il.  [default: the only one]")
@option("--select", metavar="FUNCTION", help="Selection function; auto finds out while training.  [default: rho_loss]")
@option(
    "--compare",
    metavar="A,B,…",
    help="Run several selection functions under one budget and print the "
    "tables; each may have settings of its own: uniform:batch_size=128:steps=500.",
)
@option("--seeds", metavar="A,B,…", help="With --compare: run each with every seed, and print median and range.")
@option(
    "--plot",
    metavar="FILE",
    help="PNG of accuracy against steps, seconds, CPU-seconds and FLOPs.  [default: with "
    "--compare, comparisons/<name>.png in the workspace]",
)
@option("--targets", metavar="X,Y,…", help="Accuracies to report steps and costs to.")
@option(
    "--model",
    metavar="MODEL",
    help="bn_cnn, small_cnn, lenet5, mlp, small_mlp, mlp_dropout, resnet18_cifar "
    "or a torchvision name.  [default: bn_cnn]",
)
@option("--weights", metavar="FILE", help="Local weights to start from.")
@option("--batch-size", type=click.IntRange(min=1), metavar="N", help="n_b, trained on each step.  [default: 32]")
@option(
    "--super-batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="n_B, candidates scored each step.  [default: 320]",
)
@option("--steps", type=click.IntRange(min=1), metavar="N", help="Budget in gradient steps.  [default: 1000]")
@option("--epochs", type=click.FloatRange(min=0, min_open=True), metavar="X", help="Budget in passes over the corpus.")
@option("--candidates", type=click.IntRange(min=1), metavar="N", help="Budget in candidates drawn.")
@option("--learning-rate", type=float, metavar="X", help="Of AdamW.  [default: 0.001]")
@option("--weight-decay", type=float, metavar="X", help="Of AdamW.  [default: 0.01]")
@option(
    "--schedule", type=click.Choice(["cosine", "constant"]), help="cosine ends at 0 with the budget.  [default: cosine]"
)
@option(
    "--image-size",
    type=click.IntRange(min=1),
    metavar="PIXELS",
    help="Side of what the model sees.  [default: the manifest's]",
)
@option("--augmentation", type=click.Choice(["none", "shift", "shift_flip", "resized_crop"]), help="[default: none]")
@option(
    "--batchnorm",
    type=click.Choice(["batch", "eval"]),
    help="Statistics while scoring: of the candidates, or the running ones.  [default: batch]",
)
@option(
    "--thumbnails",
    metavar="NAME",
    help="Score small thumbnails of the candidates (`rho thumbnails`), and read the "
    "full images of the selected only; none scores full ones.  [default: an exact one, else the largest that is "
    "smaller]",
)
@option(
    "--score-ahead/--no-score-ahead",
    default=None,
    help="Score the next candidates while the model is trained on these: scores are one step old.  [default: off]",
)
@option(
    "--prefilter",
    type=click.FloatRange(min=0),
    metavar="X",
    help="Pass over candidates, unread, whose IL model "
    "predicts another class and finds the label X times less likely than a guess.  [default: 0, off]",
)
@option("--core-set", metavar="NAME", help="Train on a core set of `rho coreset` alone.")
@option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="X",
    help="Of each super-batch, trained on in several steps.  [default: one batch of it]",
)
@option(
    "--rule",
    type=click.Choice(["default", "top", "gumbel", "importance"]),
    help="How candidates are chosen by their scores.  [default: the function's own, mostly top]",
)
@option(
    "--temperature", type=click.FloatRange(min=0, min_open=True), metavar="X", help="Of --rule gumbel.  [default: 1]"
)
@option(
    "--class-floor",
    type=click.FloatRange(0, 1),
    metavar="X",
    help="Each class gets at least X of what uniform sampling would give it.  [default: 0, off]",
)
@option(
    "--score-floor",
    type=float,
    metavar="X",
    help="Train on no candidate with a score of X or less; batches then "
    "fill from several super-batches.  [default: off]",
)
@option(
    "--score-age",
    type=click.IntRange(min=1),
    metavar="N",
    help="Re-use losses of fewer than N steps ago.  [default: 1, none]",
)
@option(
    "--score-precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    help="Of the scoring pass.  [default: auto, as --precision]",
)
@option(
    "--score-size",
    type=click.IntRange(min=1),
    metavar="PIXELS",
    help="Shrink candidates for the scoring pass.  [default: as they are]",
)
@option("--score-compile/--no-score-compile", default=None, help="Score by torch.compile.  [default: off]")
@option(
    "--proxy/--no-proxy",
    default=None,
    help="Score by a small model of the IL model's architecture that is trained along.  [default: off]",
)
@option(
    "--live-il/--no-live-il",
    default=None,
    help="Let the IL model go on learning: the paper's original function, an ablation.  [default: off]",
)
@option("--on-missing", type=click.Choice(["error", "drop"]), help="Samples without a finite IL.  [default: error]")
@option(
    "--evaluate-every",
    type=click.IntRange(min=1),
    metavar="N",
    help="Steps between evaluations, each with a checkpoint.  [default: a twentieth]",
)
@option("--evaluate-at-most", type=click.IntRange(min=1), metavar="N", help="Samples to evaluate on.  [default: all]")
@option(
    "--il-runs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Runs among which the IL model's cost is shared.  [default: 1]",
)
@option("--seed", type=int, metavar="N", help="Of the model, the order and the augmentation.  [default: 0]")
@option("--precision", type=click.Choice(["auto", "float32", "bfloat16"]), help="[default: auto]")
@option(
    "--threads",
    type=click.IntRange(min=0),
    metavar="N",
    help="Decoding threads.  [default: one a core, half of them where the model trains on the CPU]",
)
@option("--workers", metavar="N", help="Decoding processes; auto starts them once they are worth it.  [default: auto]")
@option(
    "--tensorboard/--no-tensorboard",
    default=None,
    help="Write TensorBoard's event files beside the run's metrics.  [default: where it is installed]",
)
@option(
    "--wandb",
    metavar="PROJECT",
    help="Log to this project of Weights & Biases too (`pip install "
    "rhostream[wandb]`; its own variables hold, for instance WANDB_MODE=offline).  [default: off]",
)
@device_option
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

    The workspace needs shards (`rho shards`) and, for rho_loss, irreducible_loss and auto, an IL table (`rho il train`,
    `rho il score`). Killed and started again, a run goes on from its last checkpoint and ends as if never killed (but
    for auto, whose decisions depend on measured time).
    """
    from rhostream.loaders.index import CorpusMetadata
    from rhostream.loaders.storage import Workspace
    from rhostream.pipeline.comparison import compare as compare_runs, report
    from rhostream.pipeline.config import TrainConfig, settings
    from rhostream.pipeline.training import train as run_training

    if seeds and not compare:
        raise click.UsageError("--seeds goes with --compare; a single run has --seed")
    _check_plot(plot)
    corpus = CorpusMetadata.read(Workspace(workspace))
    manifest = ("the manifest's [train] (`rho shards` again takes up its corrections)", corpus.manifest["train"])
    layers = (manifest, *given(*_SETTINGS))
    config = settings(TrainConfig, *_one_budget(layers))
    aims = _numbers(targets)
    if compare:
        found = compare_runs(
            workspace, config, compare.split(","), seeds=_seeds(seeds), targets=aims, overwrite=overwrite
        )
    else:
        run = run_training(workspace, config, overwrite=overwrite)
        found = report([run.name], [[run]], aims, config.il_runs)
    plotted = _plot(found, workspace, config.name or "compare", plot) if compare or plot else None
    _print(found, plotted, as_json)


def _one_budget(layers: "tuple[Layer, ...]") -> "list[Layer]":
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


def _check_plot(file: str | None) -> None:
    """Hours of training must not end in a plot that cannot be written."""
    if file is None:
        return
    if Path(file).suffix.lower() != ".png":
        raise click.BadParameter(f"{file!r} is not the name of a PNG: end it in .png", param_hint="--plot")
    if not Path(file).absolute().parent.is_dir():
        raise click.BadParameter(f"{file!r} lies in no folder that exists: make it first", param_hint="--plot")


def _plot(comparison: "Comparison", workspace: str, name: str, file: str | None) -> str | None:
    """Write the chart, to the workspace where no file is named; returns where. None where nothing was evaluated."""
    from rhostream.cli.comparison import il_note
    from rhostream.loaders.storage import Workspace
    from rhostream.pipeline.comparison import accuracy_chart

    bands = [variant.band for variant in comparison.variants]
    if not any(band.steps for band in bands):
        return None
    seeds = max(len(variant.runs) for variant in comparison.variants)
    notes = [il_note(comparison), f"median and range of {seeds} seeds" if seeds > 1 else ""]
    chart = accuracy_chart(bands, comparison.targets, "; ".join(note for note in notes if note))
    if file is not None:
        Path(file).write_bytes(chart)
        return file
    stored = f"comparisons/{name}.png"
    Workspace(workspace).write_bytes(stored, chart)
    return Workspace(workspace).path(stored)


def _print(comparison: "Comparison", plotted: str | None, as_json: bool) -> None:
    import pyarrow as pa

    from rhostream.cli.comparison import il_note, tables
    from rhostream.cli.output import print_table

    if as_json:
        click.echo(json.dumps(comparison.to_dict() | {"plot": plotted}, indent=1))
        return
    for table in tables(comparison):
        print_table(pa.table(table), "table", None)
        click.echo()
    if note := il_note(comparison):
        click.echo(f"Costs without evaluation; {note}.")
    if plotted:
        click.echo(f"plot: {plotted}", err=True)
