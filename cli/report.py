"""`rho report`."""

import click

from rhostream.cli.options import examples, force_option, json_option, option, settings_options, workspace_option
from rhostream.cli.output import say_result
from rhostream.pipeline.config import Metric, TrainConfig


@click.command(
    epilog=examples(
        "rho report --workspace runs/demo --output report.html",
        "rho report --workspace runs/demo --run learnable --run uniform --output report.html",
        "rho report --workspace runs/demo --near-duplicates",
    )
)
@workspace_option
@option(
    "--run",
    "runs",
    metavar="RUN",
    multiple=True,
    help="A run to compare; may be repeated. The pictures are about "
    "the first that scored its candidates against irreducible losses.  [default: all runs]",
)
@option(
    "--il",
    metavar="NAME",
    default="",
    show_default=False,
    help="IL model whose losses and predicted labels to show.  [default: the run's]",
)
@option(
    "--near-duplicates",
    is_flag=True,
    help="Show training images that look the same. This reads them all, or their thumbnails; 50,000 at most.",
)
@settings_options(TrainConfig, "metric")
@option("--output", envvar=None, metavar="FILE", default="report.html", type=click.Path(), help="The file to write.")
@force_option
@json_option
def report(
    workspace: str,
    runs: tuple[str, ...],
    il: str,
    near_duplicates: bool,
    metric: Metric | None,
    output: str,
    force: bool,
    as_json: bool,
) -> None:
    """Write one HTML file that shows what was skipped, and why.

    It holds everything it shows, pictures included, and asks no network for anything. It says which classes are noisy,
    what was skipped and whether that paid; each picture and chart comes with the SQL behind it.
    """
    from rhostream.pipeline.report import write_report

    data = write_report(
        workspace, output, runs=runs, il_model=il, near_duplicates=near_duplicates, metric=metric, force=force
    )
    runs_shown = [run.name for run in data.runs]
    found = {"output": output, "runs": runs_shown, "pictures": len(data.pictures)}
    if data.copies is not None:
        found["near_duplicates"] = data.copies.found
    say_result(found, f"{output}: {len(runs_shown)} runs, {len(data.pictures)} pictures", as_json)
