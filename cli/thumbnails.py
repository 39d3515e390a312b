"""`rho thumbnails`: the thumbnails of shards that exist already."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rhostream.cli.options import examples, given, json_option, option, workspace_option

if TYPE_CHECKING:
    from rhostream.pipeline.thumbnails import ThumbnailsSummary

_SETTINGS = ("size", "format", "splits", "workers")
_FROM_CORPUS = {"thumbnails": "size", "thumbnail_format": "format"}


@click.command(
    epilog=examples(
        "rho thumbnails --workspace runs/clothing1m",
        "rho thumbnails --workspace runs/clothing1m --size 96 --format raw",
        "rho thumbnails --workspace s3://bucket/runs/photos --split train --split holdout",
    )
)
@workspace_option
@option(
    "--size",
    envvar="RHO_THUMBNAILS_SIZE",
    type=click.IntRange(min=1),
    metavar="PIXELS",
    help="Shorter side of the "
    "thumbnails; smaller images are not enlarged.  [default: the manifest's thumbnails, else 64]",
)
@option(
    "--format",
    envvar="RHO_THUMBNAILS_FORMAT",
    type=click.Choice(["jpeg", "raw"]),
    help="raw is exact and needs no "
    "decoding, in 5 to 8 times the space, less where gray.  [default: the manifest's, else jpeg]",
)
@option(
    "--split",
    "splits",
    envvar="RHO_THUMBNAILS_SPLIT",
    multiple=True,
    metavar="SPLIT",
    help="Split to make it of; may be repeated.  [default: train]",
)
@option(
    "--workers",
    type=click.IntRange(min=0),
    metavar="N",
    show_default="one per core",
    help="Local worker processes; 0 works in this one. The result is the same for any number.",
)
@click.option("--overwrite", is_flag=True, help="Make again what is already made.")
@json_option
def thumbnails(workspace: str, overwrite: bool, as_json: bool, **_: Any) -> None:
    """Store a small thumbnail of every sample beside its shard, for scoring.

    The stream then reads and decodes thumbnails of the candidates, and full images of the few selected. Works for
    shards of `rho shards` and for tars of `rho index` alike. Run the same command again after an interruption: it
    goes on with the shards that are missing. Raw thumbnails of images that are no larger than their size are exact: the
    stream then reads nothing else.
    """
    from rhostream.loaders.index import CorpusMetadata
    from rhostream.loaders.storage import Workspace
    from rhostream.pipeline.config import settings
    from rhostream.pipeline.thumbnails import ThumbnailsConfig, write_thumbnails

    place = Workspace(workspace)
    manifest = CorpusMetadata.read(place).manifest
    corpus = {name: manifest.get(key) or None for key, name in _FROM_CORPUS.items()}
    layers = (("corpus.json", corpus), *given(*_SETTINGS), ("command line", {"overwrite": overwrite}))
    summary = write_thumbnails(place, settings(ThumbnailsConfig, *layers))
    click.echo(json.dumps(asdict(summary), indent=1) if as_json else text(summary))


def text(summary: "ThumbnailsSummary") -> str:
    """The summary in one line."""
    mean = summary.bytes / summary.rows if summary.rows else 0.0
    share = summary.bytes / summary.original_bytes if summary.original_bytes else 0.0
    exact = " (exact)" if summary.exact else ""
    return (
        f"thumbnails {summary.name}{exact} of {', '.join(summary.splits)}: {summary.rows} "
        f"samples in {summary.shards} shards, {summary.shards_made} made in {summary.seconds:.1f} s; "
        f"{summary.bytes / 1e6:.1f} MB ({mean / 1e3:.1f} kB a sample), {share:.0%} of the originals' "
        f"{summary.original_bytes / 1e6:.1f} MB"
    )
