"""`rho il train` and `rho il score`."""

from typing import Any

import click

from rhostream.cli.options import chosen_settings, command, json_option, settings_options, workspace_option
from rhostream.cli.output import say, say_json
from rhostream.pipeline.config import ILScoreConfig, ILTrainConfig


@click.group()
def il() -> None:
    """Train the IL model, and score every sample with it.

    The irreducible loss of a sample is its loss under a small model that was never trained on it. Options are
    also read from the environment, and from the manifest's table [il].
    """


@command(
    "rho il train --workspace runs/demo",
    "rho il train --workspace runs/demo --name big --model resnet18 --weights resnet18.safetensors",
    "rho il train --workspace runs/demo --steps 5000 --overwrite",
)
@workspace_option
@settings_options(ILTrainConfig)
@click.option("--overwrite", is_flag=True, help="Remove a model of this name, with its scores, and start afresh.")
@json_option
def train(workspace: str, overwrite: bool, as_json: bool, **_: Any) -> None:
    """Train the IL model on the holdout, or one model per fold on the other folds.

    Training ends where validation loss stops falling, on a part of the train split chosen by a hash of the keys;
    kept are the weights of its lowest value. Killed and started again, it goes on from its last checkpoint and ends
    as if never killed; a model that is there already is left as it is. Under torchrun the processes share out the
    models of the folds. At the end the last layer is fitted again to the samples that the model is to score, each by
    the labels of the others, where that lowers their loss.
    """
    from rhostream.loaders.index import CorpusMetadata
    from rhostream.loaders.storage import Workspace
    from rhostream.pipeline.il import train_il
    from rhostream.pipeline.jobs import joined

    with joined() as exchange:
        place = Workspace(workspace)
        manifest = CorpusMetadata.read(place).manifest.get("il", {})
        config = chosen_settings(ILTrainConfig, ("corpus.json [il]", manifest))
        trained = train_il(place, config, overwrite=overwrite)
        if exchange.rank:
            return
    for warning in trained.warnings:
        say(f"rho: {warning}", err=True)
    training = trained.to_dict()
    if as_json:
        say_json(training)
        return
    _print_table(training["models"])
    state = "was already trained" if training["already_trained"] else "trained"
    say(
        f"IL model {training['name']} ({training['model']}, {training['parameters']} parameters) {state} in "
        f"{training['seconds']:.1f} s"
    )


@command(
    "rho il score --workspace runs/demo",
    "rho il score --workspace runs/demo --name big --split train --split holdout",
    "rho il score --workspace runs/demo --only train-000012",
    "torchrun --nproc-per-node 8 --no-python rho il score --workspace runs/demo",
)
@workspace_option
@settings_options(ILScoreConfig)
@click.option("--overwrite", is_flag=True, help="Score again what is already scored.")
@json_option
def score(workspace: str, as_json: bool, **_: Any) -> None:
    """Write the irreducible loss of every sample, shard by shard, with predicted class and confidence.

    With folds, each sample is scored by the model that never saw its fold. Killed and started again, it scores
    only the shards that are left. Under torchrun, every rank scores its own share of the shards.
    """
    from dataclasses import asdict

    from rhostream.loaders.storage import Workspace
    from rhostream.pipeline.il import score_il

    found = score_il(Workspace(workspace), chosen_settings(ILScoreConfig))
    scores, quality = asdict(found), found.quality
    if as_json:
        say_json(scores)
        return
    del scores["quality"]
    _print_table([{name: value for name, value in scores.items() if value is not None}])
    if quality is None:
        return
    wrong = "" if quality.wrong is None else f", about {quality.wrong:.0%} of them look wrong"
    lost = "" if quality.lost is None else f", of the right labels at least {quality.lost:.0%}"
    say(
        f"It predicts {quality.accuracy:.1%} of the labels, explains {max(0.0, quality.explained):.0%} of their "
        f"entropy{wrong}. "
        f"Its filter rules {quality.ruled_out:.0%} out{lost}."
    )
    for warning in quality.warnings:
        say(f"rho: {warning}", err=True)


il.add_command(train)
il.add_command(score)


def _print_table(rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    from rhostream.cli.output import print_table

    print_table(pa.Table.from_pylist(rows), "table", None)
