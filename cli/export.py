"""`rho export`: what was found out, for other tools."""

from typing import TYPE_CHECKING, Any

import click

from rhostream.cli.options import (
    Command,
    chosen_settings,
    examples,
    force_option,
    json_option,
    option,
    settings_options,
    workspace_option,
)
from rhostream.cli.output import print_table, say_result
from rhostream.pipeline.config import CleanListConfig, CoreSetConfig, EngineName

if TYPE_CHECKING:
    from rhostream.pipeline.export import Choice


@click.group()
def export() -> None:
    """Write clean lists, cleaned manifests and subsets that other tools can read."""


def _which_samples(command: Command) -> Command:
    """The options of `rhostream.pipeline.export.subset.Choice`."""
    for decorate in reversed(
        (
            option(
                "--reason",
                "reasons",
                multiple=True,
                metavar="REASON",
                help="Samples with this reason (`rho explain reasons`); may be repeated.",
            ),
            option("--sql", metavar="SQL", help="Samples whose keys this statement returns as `key`."),
            option("--clean-list", metavar="FILE", type=click.Path(), help="Samples that this list keeps or relabels."),
            settings_options(CleanListConfig, "max_drop_share"),
            option(
                "--run", metavar="RUN", show_default="the only one", help="The training run whose reasons are meant."
            ),
            option(
                "--il", metavar="NAME", show_default="the run's, or the only one", help="The IL model that is meant."
            ),
        )
    ):
        command = decorate(command)
    return command


def _choice(given: dict[str, Any]) -> "Choice":
    from rhostream.pipeline.export import Choice

    return Choice(**given | {"max_drop_share": chosen_settings(CleanListConfig).max_drop_share})


@export.command(
    "list",
    epilog=examples(
        "rho export list --workspace runs/demo --output clean.parquet",
        "rho export list --workspace runs/demo --run learnable --drop mislabeled --drop redundant --output clean.csv",
        "rho export list --workspace runs/demo --relabel 0.95 --output clean.parquet",
    ),
)
@workspace_option
@settings_options(CleanListConfig)
@option("--output", envvar=None, required=True, metavar="FILE", type=click.Path(), help="Ends in .parquet or .csv.")
@force_option
@json_option
def clean_list(workspace: str, output: str, force: bool, as_json: bool, **_: Any) -> None:
    """Write which training samples to keep, to relabel and to leave out.

    The columns is_label_issue, label_quality, given_label and predicted_label are cleanlab's; action, label and class
    say what `rho export manifest` will do.
    """
    from collections import Counter

    from rhostream.errors import ConfigError
    from rhostream.loaders.storage import OutputFile
    from rhostream.pipeline.export import clean_list as make

    form = output.rpartition(".")[2].lower()
    if form not in ("parquet", "csv"):
        raise ConfigError(f"--output {output}: name a file that ends in .parquet or .csv")
    file = OutputFile(output, workspace=workspace, force=force)
    table = make(workspace, chosen_settings(CleanListConfig))
    print_table(table, form, file)
    counts = Counter(table.column("action").to_pylist())
    told = f"{output}: {', '.join(f'{count} to {action}' for action, count in sorted(counts.items()))}"
    say_result({"output": output, **counts}, told, as_json)


@export.command(
    epilog=examples(
        "rho export manifest --workspace runs/demo --clean-list clean.parquet --output cleaned.toml",
        "rho export manifest --workspace runs/demo --clean-list clean.csv --root photos --output cleaned.toml",
    )
)
@workspace_option
@option("--clean-list", required=True, metavar="FILE", type=click.Path(), help="A list of `rho export list`.")
@settings_options(CleanListConfig, "max_drop_share")
@option("--root", metavar="PATH", help="Folder or file of the corpus, in place of the one it was read from.")
@option("--output", envvar=None, required=True, metavar="FILE", type=click.Path(), help="The TOML file to write.")
@force_option
@json_option
def manifest(
    workspace: str, clean_list: str, root: str | None, output: str, force: bool, as_json: bool, **_: Any
) -> None:
    """Write a copy of the corpus's manifest that applies a clean list.

    `rho shards` makes the cleaned corpus of it, in a workspace of its own: what the list drops becomes a reject with
    the reason excluded, so that samples and rejects still add up to the entries.
    """
    from rhostream.pipeline.export import write_cleaned_manifest

    most = chosen_settings(CleanListConfig).max_drop_share
    write_cleaned_manifest(workspace, clean_list, output, root=root, max_drop_share=most, force=force)
    told = f"{output}: `rho shards --manifest {output} --workspace NEW` makes the cleaned corpus"
    say_result({"output": output}, told, as_json)


@export.command(
    epilog=examples(
        "rho export webdataset --workspace runs/demo --reason mislabeled --run learnable --output suspects",
        "rho export webdataset --workspace runs/demo --clean-list clean.parquet --output cleaned",
        'rho export webdataset --workspace runs/demo --sql "SELECT key FROM il WHERE il > 4" --output high_il',
    )
)
@workspace_option
@_which_samples
@settings_options(CoreSetConfig, "engine", "workers")
@option("--samples-per-tar", type=click.IntRange(min=1), default=10_000, metavar="N", help="Samples in a tar.")
@option("--output", envvar=None, required=True, metavar="PATH", help="Folder or fsspec URL to write the tars to.")
@force_option
@json_option
def webdataset(
    workspace: str,
    output: str,
    samples_per_tar: int,
    engine: EngineName | None,
    workers: int | None,
    force: bool,
    as_json: bool,
    **choice: Any,
) -> None:
    """Write chosen samples as WebDataset tars: image, .cls and .json."""
    from rhostream.pipeline.export import Subset, write_webdataset

    subset = Subset(workspace, _choice(choice))
    tars = write_webdataset(
        subset,
        output,
        samples_per_tar=samples_per_tar,
        force=force,
        engine=engine or "local",
        workers=workers or 0,
    )
    found = {"output": output, "samples": len(subset), "tars": tars}
    say_result(found, f"{output}: {len(subset)} samples in {len(tars)} tars", as_json)


@export.command(
    epilog=examples(
        "rho export fiftyone --workspace runs/demo --reason mislabeled --run learnable --output suspects",
    )
)
@workspace_option
@_which_samples
@settings_options(CoreSetConfig, "engine", "workers")
@option("--output", envvar=None, required=True, metavar="FOLDER", type=click.Path(), help="Local folder to write to.")
@force_option
@json_option
def fiftyone(
    workspace: str,
    output: str,
    engine: EngineName | None,
    workers: int | None,
    force: bool,
    as_json: bool,
    **choice: Any,
) -> None:
    """Write chosen samples in FiftyOne's format FiftyOneImageClassificationDataset.

    labels.json holds the labels, predicted.json what the IL model predicts, reason.json why a sample is skipped.
    """
    from rhostream.pipeline.export import Subset, write_fiftyone

    subset = Subset(workspace, _choice(choice))
    files = write_fiftyone(subset, output, force=force, engine=engine or "local", workers=workers or 0)
    found = {"output": output, "samples": len(subset), "files": files}
    say_result(found, f"{output}: {len(subset)} samples, {', '.join(files)}", as_json)
