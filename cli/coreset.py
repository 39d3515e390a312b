"""`rho coreset`: a core set of the training split, chosen once by an IL model."""

from dataclasses import asdict
from typing import Any

import click

from rhostream.cli.options import chosen_settings, command, json_option, settings_options, workspace_option
from rhostream.cli.output import say, say_json, say_result
from rhostream.pipeline.config import CoreSetConfig


@command(
    "rho coreset --workspace runs/demo --keep 0.1",
    "rho coreset --workspace runs/demo --keep 0.3 --il strided_cnn --name third",
)
@workspace_option
@settings_options(CoreSetConfig)
@click.option("--overwrite", is_flag=True, help="Choose anew, in the place of a core set of this name.")
@json_option
def coreset(workspace: str, overwrite: bool, as_json: bool, **_: Any) -> None:
    """Choose the samples that the IL model is least certain of, to train on these alone.

    This is selection via proxy (Coleman et al., 2020): kept are the training samples of the highest entropy. The stream
    passes over the others without reading them: CandidateStream(…, core_set="svp").
    """
    from rhostream.loaders.storage import Workspace
    from rhostream.pipeline.il import write_core_set

    summary = write_core_set(Workspace(workspace), chosen_settings(CoreSetConfig), overwrite=overwrite)
    if summary is None:
        told = "the parts of this job are written: the job that writes the last of all writes the core set's card"
        say_result({"complete": False}, told, as_json)
        return
    if as_json:
        say_json(asdict(summary))
        return
    state = "was already made" if summary.already_made else "made"
    say(
        f"core set {summary.name} {state}: {summary.kept} of {summary.samples} training samples, those of the highest "
        f"entropy under {summary.il} (at least {summary.least_entropy:.4g} nats)"
    )
