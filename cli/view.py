"""`rho view`: the scoring view of shards that exist already."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rhostream.cli.options import examples, given, json_option, option, workspace_option

if TYPE_CHECKING:
    from rhostream.pipeline.scoring_view import ScoringViewSummary

_SETTINGS = ("size", "format", "splits", "workers")
_FROM_CORPUS = {"scoring_view": "size", "scoring_format": "format"}


@click.command(
    epilog=examples(
        "rho view --workspace runs/clothing1m",
        "rho view --workspace runs/clothing1m --size 96 --format raw",
        "rho view --workspace s3://bucket/runs/photos --split train --split holdout",
    )
)
@workspace_option
@option("--size", envvar="RHO_VIEW_SIZE", type=click.IntRange(min=1), metavar="PIXELS", help="Shorter side of the "
        "renditions; smaller images are not enlarged.  [default: the manifest's scoring_view, else 64]")  # fmt: skip
@option("--format", envvar="RHO_VIEW_FORMAT", type=click.Choice(["jpeg", "raw"]), help="raw is exact and needs no "
        "decoding, in 5 to 8 times the space, less where grey.  [default: the manifest's, else jpeg]")  # fmt: skip
@option("--split", "splits", envvar="RHO_VIEW_SPLIT", multiple=True, metavar="SPLIT", help="Split to make it of; may "
        "be repeated.  [default: train]")  # fmt: skip
@option("--workers", type=click.IntRange(min=0), metavar="N", show_default="one per core",
        help="Local worker processes; 0 works in this one. The result is the same for any number.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Make again what is already made.")
@json_option
def view(workspace: str, overwrite: bool, as_json: bool, **_: Any) -> None:
    """Store a small rendition of every sample beside its shard, for scoring.

    The stream then reads and decodes renditions of the candidates, and full images of the few selected. Works for
    shards of `rho shards` and for tars of `rho index` alike. Run the same command again after an interruption: it
    goes on with the shards that are missing. A raw view of images that are no larger than its size is exact: the
    stream then reads nothing else.
    """
    from rhostream.loaders.index import CorpusCard
    from rhostream.loaders.workspace import Workspace
    from rhostream.pipeline.scoring_view import ScoringViewConfig, write_scoring_view
    from rhostream.pipeline.settings import settings

    place = Workspace(workspace)
    manifest = CorpusCard.read(place).manifest
    corpus = {name: manifest.get(key) or None for key, name in _FROM_CORPUS.items()}
    layers = (("corpus.json", corpus), *given(*_SETTINGS), ("command line", {"overwrite": overwrite}))
    summary = write_scoring_view(place, settings(ScoringViewConfig, *layers))
    click.echo(json.dumps(asdict(summary), indent=1) if as_json else text(summary))


def text(summary: "ScoringViewSummary") -> str:
    """The summary in one line."""
    mean = summary.bytes / summary.rows if summary.rows else 0.0
    share = summary.bytes / summary.original_bytes if summary.original_bytes else 0.0
    exact = " (exact)" if summary.exact else ""
    return (
        f"scoring view {summary.name}{exact} of {', '.join(summary.splits)}: {summary.rows} "
        f"samples in {summary.shards} shards, {summary.shards_made} made in {summary.seconds:.1f} s; "
        f"{summary.bytes / 1e6:.1f} MB ({mean / 1e3:.1f} kB a sample), {share:.0%} of the originals' "
        f"{summary.original_bytes / 1e6:.1f} MB"
    )
