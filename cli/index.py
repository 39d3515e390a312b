"""`rho index`: a workspace over WebDataset tars that stay where they are."""

from dataclasses import replace
from typing import Any

import click

from rhostream.cli.options import command, given_settings, json_option, option, settings_options, workspace_option
from rhostream.cli.shards import report
from rhostream.pipeline.config import (
    EngineName,
    Manifest,
    ThumbnailsConfig,
    WebDatasetOptions,
    load_manifest,
    resolve_manifest,
)


@command(
    "rho index '/data/imagenet/train-{0000..1023}.tar' --workspace runs/imagenet",
    "rho index scraped/ --label json.label --extra caption --workspace runs/scraped",
    "rho index tagged/ --task multi_label --label json.tags --workspace runs/tagged",
    "rho index s3://bucket/shards/ --label json.label --classes cat,dog --folds 2 --workspace runs/pets",
    "rho index 'a/*.tar' 'b/*.tar' --split 'val-*.tar=val' --keys tar --workspace runs/both",
    "rho index --manifest data_manifests/img2dataset.toml --workspace runs/scraped",
)
@click.argument("tars", nargs=-1, metavar="TAR_OR_URL...")
@workspace_option
@option(
    "--manifest",
    metavar="FILE",
    type=click.Path(),
    help="TOML file of format webdataset: options and defaults; its root serves where no tar is named.",
)
@settings_options(WebDatasetOptions)
@settings_options(Manifest, "task", "classes", "seed", "holdout", "folds", "thumbnails", "thumbnail_format")
@settings_options(ThumbnailsConfig, "engine", "workers")
@click.option(
    "--overwrite",
    is_flag=True,
    help="First remove what `rho index` has written to "
    "the workspace: corpus.json, and its own files in index/, rejects/ and scans/; never a tar.",
)
@json_option
def index(
    tars: tuple[str, ...],
    workspace: str,
    manifest: str | None,
    engine: EngineName | None,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
    **_: Any,
) -> None:
    """Index WebDataset tars where they lie: nothing is copied, nothing re-sharded.

    TAR_OR_URL is a plain tar, a folder with tars, a glob or a brace pattern, local or of any fsspec URL. Every tar is
    read once; every sample of it becomes a row that points into the tar, or a row in rejects with its reason. Run the
    same command again after an interruption: it goes on with the tars that are missing. Run it again with more tars:
    it adds them.
    """
    from rhostream.errors import ConfigError
    from rhostream.pipeline.in_place import index_tars

    environment, flags = given_settings(Manifest)
    if manifest is None:
        plain = {"name": "tars", "format": "webdataset"}
        resolved = resolve_manifest(("rho index", plain), environment, flags)
    else:
        resolved = load_manifest(manifest, flags[1], environment[1])
    for layer in given_settings(WebDatasetOptions):
        resolved = replace(resolved, options={**resolved.options, **layer[1]})
    named = tars or ((resolved.root,) if resolved.root else ())
    if not named:
        raise ConfigError("no tar is named: pass tars, folders, globs or URLs, or a --manifest with a root")
    engine = engine or "local"
    summary = index_tars(workspace, named, resolved, workers=workers, engine=engine, overwrite=overwrite)
    report(resolved, summary, engine, workers, as_json=as_json)
