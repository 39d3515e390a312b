"""`rho index`: a workspace over WebDataset tars that stay where they are."""

from dataclasses import replace
from typing import Any

import click

from rhostream.cli.options import examples, given, json_option, option, workspace_option
from rhostream.cli.shards import report

_MANIFEST_SETTINGS = ("seed", "holdout", "folds", "classes", "thumbnails", "thumbnail_format")
_READER_OPTIONS = ("label", "extra", "splits", "keys", "on_bad_tar")


def _names(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    return None if value is None else [name.strip() for name in value.split(",")]


def _types(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = (value.partition("=") for value in values)
    return {name: kind or "string" for name, _, kind in pairs}


def _splits(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    splits = {}
    for value in values:
        glob, equals, split = value.rpartition("=")
        if not equals:
            raise click.BadParameter(f"{value!r}: give GLOB=SPLIT, for instance 'val-*.tar=val'", context, parameter)
        splits[glob] = split
    return splits


@click.command(
    epilog=examples(
        "rho index '/data/imagenet/train-{0000..1023}.tar' --workspace runs/imagenet",
        "rho index scraped/ --label json.label --extra caption --workspace runs/scraped",
        "rho index s3://bucket/shards/ --label json.label --classes cat,dog --folds 2 --workspace runs/pets",
        "rho index 'a/*.tar' 'b/*.tar' --split 'val-*.tar=val' --keys tar --workspace runs/both",
        "rho index --manifest data_manifests/img2dataset.toml --workspace runs/scraped",
    )
)
@click.argument("tars", nargs=-1, metavar="TAR_OR_URL...")
@workspace_option
@option(
    "--manifest",
    metavar="FILE",
    type=click.Path(),
    help="TOML file of format webdataset: options and defaults; its root serves where no tar is named.",
)
@option(
    "--label",
    metavar="PLACE",
    help="Where the label is: cls or txt (the member's text), or json.FIELD.  [default: cls]",
)
@option(
    "--classes",
    metavar="A,B,...",
    callback=_names,
    help="Names of the classes, in the order of their numbers; "
    "other labels are refused.  [default: all labels that occur]",
)
@option(
    "--extra",
    multiple=True,
    metavar="FIELD[=TYPE]",
    callback=_types,
    help="Field of the .json to keep in the index as string, int64, double or bool, or txt; may be repeated.",
)
@option(
    "--split",
    "splits",
    multiple=True,
    metavar="GLOB=SPLIT",
    callback=_splits,
    help="Tars of an official split (train, val or test), by the end of their names; may be repeated.",
)
@option(
    "--keys",
    type=click.Choice(["sample", "tar"]),
    help="sample keeps webdataset's __key__; tar also names the "
    "tar in it, for tars that number their samples alike.  [default: sample]",
)
@option(
    "--on-bad-tar",
    type=click.Choice(["error", "skip"]),
    help="At a damaged tar stop, or go on at the next valid "
    "header and count the bytes between as a reject.  [default: error]",
)
@option("--seed", type=int, metavar="N", help="Salts the split.")
@option("--holdout", type=float, metavar="SHARE", help="Share of the training samples that trains the IL model.")
@option("--folds", type=int, metavar="K", help="No holdout: K IL models, each scoring what it has not seen.")
@option(
    "--thumbnails",
    type=click.IntRange(min=0),
    metavar="PIXELS",
    help="Also store small thumbnails of the "
    "training samples, of this shorter side, for scoring; 0 for none. See `rho thumbnails`.",
)
@option("--thumbnail-format", type=click.Choice(["jpeg", "raw"]), help="Of the thumbnails.")
@option(
    "--workers",
    type=click.IntRange(min=0),
    metavar="N",
    show_default="one per core",
    help="Local worker processes; 0 works in this one. The result is the same for any number.",
)
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
    from rhostream.pipeline.config import load_manifest, resolve_manifest
    from rhostream.pipeline.in_place import index_tars

    environment, flags = given(*_MANIFEST_SETTINGS)
    if manifest is None:
        plain = {"name": "tars", "format": "webdataset"}
        resolved = resolve_manifest(("rho index", plain), environment, flags)
    else:
        resolved = load_manifest(manifest, flags[1], environment[1])
    for layer in given(*_READER_OPTIONS):
        resolved = replace(resolved, options={**resolved.options, **layer[1]})
    named = tars or ((resolved.root,) if resolved.root else ())
    if not named:
        raise ConfigError("no tar is named: pass tars, folders, globs or URLs, or a --manifest with a root")
    summary = index_tars(workspace, named, resolved, workers=workers, overwrite=overwrite)
    report(resolved, summary, workers, as_json=as_json)
