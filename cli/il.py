"""`rho il train` and `rho il score`."""

import json
from collections.abc import Callable
from typing import Any

import click

from rhostream.cli.options import (
    Command,
    device_option,
    examples,
    given,
    json_option,
    option,
    workers_option,
    workspace_option,
)

_TRAIN_SETTINGS = (
    "name",
    "model",
    "weights",
    "epochs",
    "patience",
    "batch_size",
    "learning_rate",
    "schedule",
    "weight_decay",
    "validation_share",
    "validation_samples",
    "image_size",
    "augmentation",
    "seed",
    "device",
    "precision",
    "threads",
)
_SCORE_SETTINGS = ("name", "splits", "only", "batch_size", "device", "precision", "workers", "threads", "overwrite")


def _il_option(flag: str, *names: str, **attributes: Any) -> Callable[[Command], Command]:
    """An option whose variable begins with RHO_IL_, so that RHO_MODEL, say, stays that of `rho train`."""
    variable = "RHO_IL_" + flag.removeprefix("--").replace("-", "_").upper()
    return option(flag, *names, envvar=variable, **attributes)


_precision = _il_option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    help="auto takes bfloat16 on GPUs that compute in it.  [default: auto to train, float32 to score]",
)
_threads = _il_option(
    "--threads", type=click.IntRange(min=0), metavar="N", help="Decoding threads.  [default: one a core]"
)


@click.group()
def il() -> None:
    """Train the IL model, and score every sample with it.

    The irreducible loss of a sample is its loss under a small model that was never trained on it. Options are
    also read from RHO_IL_<OPTION>, and from the manifest's table [il].
    """


@il.command(
    epilog=examples(
        "rho il train --workspace runs/demo",
        "rho il train --workspace runs/demo --name big --model resnet18 --weights resnet18.safetensors",
        "rho il train --workspace runs/demo --epochs 50 --overwrite",
    )
)
@workspace_option
@_il_option("--name", metavar="NAME", help="Name of the IL model.  [default: that of --model]")
@_il_option(
    "--model",
    metavar="MODEL",
    help="small_cnn, lenet5, bn_cnn, mlp, small_mlp, mlp_dropout, resnet18_cifar "
    "or a torchvision name.  [default: small_cnn]",
)
@_il_option("--weights", metavar="FILE", help="Local .safetensors or .pt weights to start from.")
@_il_option(
    "--epochs",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most so many; with one cycle, its length.  [default: 5]",
)
@_il_option(
    "--patience",
    type=click.IntRange(min=0),
    metavar="N",
    help="Stop after N epochs without a lower validation loss; 0 for never.  [default: 3]",
)
@_il_option("--batch-size", type=click.IntRange(min=1), metavar="N", help="[default: 128]")
@_il_option("--learning-rate", type=float, metavar="X", help="Of AdamW; with one cycle, the peak.  [default: 0.003]")
@_il_option(
    "--schedule",
    type=click.Choice(["one_cycle", "constant"]),
    help="one_cycle rises for 30% of the steps and falls to 0 with the last; few epochs suffice.  [default: one_cycle]",
)
@_il_option("--weight-decay", type=float, metavar="X", help="Of AdamW.  [default: 0.01]")
@_il_option(
    "--validation-share",
    type=float,
    metavar="X",
    help="Share of the train split that chooses the epoch.  [default: 0.1]",
)
@_il_option(
    "--validation-samples", type=click.IntRange(min=1), metavar="N", help="At most so many of them.  [default: 2000]"
)
@_il_option(
    "--image-size",
    type=click.IntRange(min=1),
    metavar="PIXELS",
    help="Side of what the model sees.  [default: the manifest's]",
)
@_il_option(
    "--augmentation", type=click.Choice(["none", "shift", "shift_flip", "resized_crop"]), help="[default: none]"
)
@_il_option("--seed", type=int, metavar="N", help="Of the model, the order and the augmentation.  [default: 0]")
@_precision
@_threads
@device_option
@click.option("--overwrite", is_flag=True, help="Remove a model of this name, with its scores, and start afresh.")
@json_option
def train(workspace: str, overwrite: bool, as_json: bool, **_: Any) -> None:
    """Train the IL model on the holdout, or one model per fold on the other folds.

    Kept is the epoch of the lowest validation loss, on a part of the train split chosen by a hash of the keys.
    Killed and started again, it goes on from the last epoch and ends as if never killed; a model that is there
    already is left as it is.
    """
    from rhostream.loaders.index import CorpusMetadata
    from rhostream.loaders.storage import Workspace
    from rhostream.pipeline.config import ILTrainConfig, settings
    from rhostream.pipeline.il import train_il

    place = Workspace(workspace)
    manifest = CorpusMetadata.read(place).manifest.get("il", {})
    config = settings(ILTrainConfig, ("corpus.json [il]", manifest), *given(*_TRAIN_SETTINGS))
    training = train_il(place, config, overwrite=overwrite).to_dict()
    if as_json:
        click.echo(json.dumps(training, indent=1))
        return
    _print_table([_rounded(model) for model in training["models"]])
    state = "was already trained" if training["already_trained"] else "trained"
    click.echo(
        f"IL model {training['name']} ({training['model']}, {training['parameters']} parameters) {state} in "
        f"{training['seconds']:.1f} s"
    )


@il.command(
    epilog=examples(
        "rho il score --workspace runs/demo",
        "rho il score --workspace runs/demo --name big --split train --split holdout",
        "rho il score --workspace runs/demo --only train-000012",
        "torchrun --nproc-per-node 8 --no-python rho il score --workspace runs/demo",
    )
)
@workspace_option
@_il_option("--name", metavar="NAME", help="IL model to score with.  [default: the only one]")
@_il_option(
    "--split", "splits", multiple=True, metavar="SPLIT", help="Split to score; may be repeated.  [default: train]"
)
@_il_option("--only", multiple=True, metavar="SHARD", help="Score this shard alone; may be repeated.")
@_il_option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Of one forward pass.  [default: as many as have 2 million values, 200 at least]",
)
@_precision
@_threads
@device_option
@workers_option
@click.option("--overwrite", is_flag=True, help="Score again what is already scored.")
@json_option
def score(workspace: str, as_json: bool, **_: Any) -> None:
    """Write the irreducible loss of every sample, shard by shard, with predicted class and confidence.

    With folds, each sample is scored by the model that never saw its fold. Killed and started again, it scores
    only the shards that are left. Under torchrun, every rank scores its own share of the shards.
    """
    from dataclasses import asdict

    from rhostream.loaders.storage import Workspace
    from rhostream.pipeline.config import settings
    from rhostream.pipeline.il import ILScoreConfig, score_il

    scores = asdict(score_il(Workspace(workspace), settings(ILScoreConfig, *given(*_SCORE_SETTINGS))))
    if as_json:
        click.echo(json.dumps(scores, indent=1))
        return
    _print_table([_rounded(scores)])


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}


def _print_table(rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    from rhostream.cli.output import print_table

    print_table(pa.Table.from_pylist(rows), "table", None)
