"""`rho shards`: from a corpus to a workspace of shards."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rhostream.cli.options import command, given_settings, json_option, option, settings_options, workspace_option
from rhostream.cli.output import say, say_json
from rhostream.cli.thumbnails import text as thumbnails_text
from rhostream.pipeline.config import EngineName, Manifest, ThumbnailsConfig, load_manifest

if TYPE_CHECKING:
    from rhostream.pipeline.shards import ShardsSummary

MOST_SHOWN = 160  # characters of an example


@command(
    "rho shards --manifest data_manifests/clothing1m.toml --root /data/clothing1m --workspace runs/clothing1m",
    "rho shards --manifest data_manifests/cifar10.toml --workspace runs/cifar10 --folds 2",
    "rho shards --manifest data_manifests/imagefolder.toml --root photos --workspace runs/photos --thumbnails 64",
    "rho shards --manifest data_manifests/table.toml --root photos/labels.csv --workspace runs/photos --dry-run",
    "rho shards --manifest data_manifests/synthetic.toml --workspace runs/demo --overwrite --json",
    "RAY_ADDRESS=head:6379 rho shards --manifest photos.toml --workspace s3://bucket/photos --engine ray",
)
@option("--manifest", required=True, metavar="FILE", type=click.Path(), help="TOML file that describes the corpus.")
@workspace_option
@settings_options(Manifest)
@settings_options(ThumbnailsConfig, "engine", "workers")
@option("--append", is_flag=True, help="Add what the corpus lists now to the shards that are there; these stay.")
@option("--dry-run", is_flag=True, help="List the corpus and count, read no image, write nothing.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="First remove what `rho shards` has written to "
    "the workspace: corpus.json, and its own files in shards/, index/ and rejects/.",
)
@json_option
def shards(
    manifest: str,
    workspace: str,
    engine: EngineName | None,
    workers: int | None,
    append: bool,
    dry_run: bool,
    overwrite: bool,
    as_json: bool,
    **_: Any,
) -> None:
    """Validate every entry of a corpus and write train, holdout and test shards.

    Every entry becomes a sample or a row in rejects with its reason. Run the same command again after an interruption:
    it goes on with the slices that are missing.
    """
    from rhostream.pipeline.shards import write_shards

    environment, flags = (values for _, values in given_settings(Manifest))
    resolved = load_manifest(manifest, flags, environment)
    engine = engine or "local"
    summary = write_shards(
        workspace,
        resolved,
        workers=workers,
        engine=engine,
        append=append,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    if summary.removed or summary.changed:
        say(
            f"rho: of the entries that the shards held before, {summary.removed} are gone from the corpus and "
            f"{summary.changed} have another label, split or source there: these shards stay as they are, --overwrite "
            "makes them anew",
            err=True,
        )
    report(resolved, summary, engine, workers, as_json=as_json)


def report(
    manifest: Manifest, summary: "ShardsSummary", engine: EngineName, workers: int | None, *, as_json: bool
) -> None:
    """Print what has been made, after making the thumbnails that the manifest asks for."""
    made = None
    if manifest.thumbnails and summary.complete and not summary.dry_run:
        from rhostream.pipeline.thumbnails import write_thumbnails

        config = ThumbnailsConfig(
            size=manifest.thumbnails,
            format=manifest.thumbnail_format,
            # Whoever ends last makes them alone: the other jobs have ended.
            engine="local" if engine == "static" else engine,
            workers=workers,
        )
        made = write_thumbnails(summary.workspace, config)
    if as_json:
        spec = {} if made is None else {"thumbnails": asdict(made)}
        say_json({**asdict(summary), **spec})
        return
    say(_text(summary) if made is None else f"{_text(summary)}\n{thumbnails_text(made)}")


def _text(summary: "ShardsSummary") -> str:
    from rhostream.schema import REJECT_REASONS

    samples, rejects = sum(summary.samples.values()), sum(summary.rejects.values())
    if not summary.complete:
        return (
            f"{summary.units_made} units made in {summary.seconds:.1f} s; of {summary.entries} entries in "
            f"{summary.units} units, {samples} samples and {rejects} rejects are made so far: the job that makes the "
            f"last of them writes {summary.workspace}/corpus.json"
        )
    lines = [("entries", summary.entries, ""), ("= samples", samples, "")]
    lines += [(f"    {split}", count, "") for split, count in summary.samples.items()]
    if empty := [name for name, count in summary.classes.items() if not count]:
        lines += [
            (
                "empty classes",
                len(empty),
                f"for instance {empty[0]}: no sample has it, and yet models have an output for it; --classes names "
                "those that are meant",
            )
        ]
    if summary.empty_captions:
        lines += [("empty captions", summary.empty_captions, "pairs of the above whose caption has no word")]
    if summary.common_captions:
        lines += [
            (
                "common captions",
                summary.common_captions,
                "pairs whose caption more than 100 have: each is split by its image",
            )
        ]
    if summary.without_class:
        lines += [("without class", summary.without_class, "samples of the above that have no label")]
    lines += [("+ rejects", rejects, "")]
    for reason, count in summary.rejects.items():
        shown = summary.examples.get(reason, "")
        note = f"{REJECT_REASONS[reason]}; for instance {shown[:MOST_SHOWN]}" if shown else REJECT_REASONS[reason]
        lines.append((f"    {reason}", count, note))
    if summary.added:
        lines += [("appended", summary.added, "entries of the above, in shards of their own")]
    copies = summary.duplicates
    if copies.groups:
        lines += [("duplicates", copies.groups, "groups of equal samples, each on one side of the split")]
        lines += [("    labels differ", copies.labels_differ, "")] if copies.labels_differ else []
        if copies.across_official_splits:
            lines += [("    test and train", copies.across_official_splits, "in an official split and in training")]
    if summary.dry_run:
        lines += [(f"class {name}", count, "") for name, count in summary.classes.items()]
    width = max(len(name) for name, _, _ in lines)
    table = "\n".join(f"{name:<{width}}  {count:>9}  {note}".rstrip() for name, count, note in lines)
    if summary.dry_run:
        return f"{table}\ndry run: {summary.units} units, nothing read or written; train includes what will be held out"
    return (
        f"{table}\n{summary.shards} shards in {summary.workspace}, {summary.units_made} of {summary.units} units made "
        f"in {summary.seconds:.1f} s"
    )
