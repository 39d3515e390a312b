"""`rho thumbnails`: the thumbnails of shards that exist already."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rhostream.cli.options import chosen_settings, command, json_option, settings_options, workspace_option
from rhostream.cli.output import say, say_json
from rhostream.pipeline.config import ThumbnailsConfig

if TYPE_CHECKING:
    from rhostream.pipeline.thumbnails import ThumbnailsSummary

_FROM_CORPUS = {"thumbnails": "size", "thumbnail_format": "format"}


@command(
    "rho thumbnails --workspace runs/clothing1m",
    "rho thumbnails --workspace runs/clothing1m --size 96 --format raw",
    "rho thumbnails --workspace s3://bucket/runs/photos --split train --split holdout",
)
@workspace_option
@settings_options(ThumbnailsConfig)
@click.option("--overwrite", is_flag=True, help="Make again what is already made.")
@json_option
def thumbnails(workspace: str, as_json: bool, **_: Any) -> None:
    """Store a small thumbnail of every sample beside its shard, for scoring.

    The stream then reads and decodes thumbnails of the candidates, and full images of the few selected. Works for
    shards of `rho shards` and for tars of `rho index` alike. Run the same command again after an interruption: it
    goes on with the shards that are missing. Raw thumbnails of images that are no larger than their size are exact: the
    stream then reads nothing else.
    """
    from rhostream.loaders.index import CorpusMetadata
    from rhostream.loaders.storage import Workspace
    from rhostream.pipeline.thumbnails import write_thumbnails

    place = Workspace(workspace)
    manifest = CorpusMetadata.read(place).manifest
    corpus = {name: manifest.get(key) or None for key, name in _FROM_CORPUS.items()}
    config = chosen_settings(ThumbnailsConfig, ("corpus.json", corpus))
    summary = write_thumbnails(place, config)
    if as_json:
        say_json(asdict(summary))
    else:
        say(text(summary))


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
