"""`rho cluster`: groups of like pairs, by the embeddings of the reference table or of any model."""

from dataclasses import asdict
from typing import Any

import click

from rhostream.cli.options import chosen_settings, command, json_option, settings_options, workspace_option
from rhostream.cli.output import say, say_json
from rhostream.pipeline.config import ClusterConfig


@command(
    "rho cluster --workspace runs/shop --count 20",
    "rho cluster --workspace runs/shop --of text --name captions",
    "rho cluster --workspace runs/shop --embeddings runs/dino --name dino",
)
@workspace_option
@settings_options(ClusterConfig)
@click.option("--overwrite", is_flag=True, help="Make them anew, in the place of clusters of this name.")
@json_option
def cluster(workspace: str, overwrite: bool, as_json: bool, **_: Any) -> None:
    """Sort image-text pairs into clusters of like ones: k-means of stored embeddings, or of those of any model.

    `rho train --clusters NAME` then draws super-batches from one cluster each (--within-clusters), or gives every
    cluster its share of what is selected (--cluster-floor); `rho explain` and the report tell of each.
    """
    from rhostream.loaders.storage import Workspace
    from rhostream.pipeline.il import write_clusters

    summary = write_clusters(Workspace(workspace), chosen_settings(ClusterConfig), overwrite=overwrite)
    if as_json:
        say_json(asdict(summary))
        return
    state = "were already made" if summary.already_made else "made"
    say(
        f"clusters {summary.name} {state}: {len(summary.sizes)} of {sum(summary.sizes)} training pairs by their "
        f"{summary.of}s, {min(summary.sizes)} to {max(summary.sizes)} each"
    )
