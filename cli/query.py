"""`rho query` and `rho views`: SQL over the tables of a workspace."""

import sys

import click

from rhostream.cli.options import examples, force_option, json_option, json_rows_option, option, workspace_option
from rhostream.cli.output import FORMATS, chosen_format, print_table, say_result


@click.command(
    epilog=examples(
        'rho query --workspace runs/demo "SELECT split, count(*) FROM samples GROUP BY split"',
        'rho query --workspace runs/demo "SHOW ALL TABLES"',
        'rho query --workspace runs/demo "SELECT * FROM ledger WHERE selected" --output selected.parquet',
        "rho query --workspace runs/demo --format json - < question.sql",
    )
)
@click.argument("sql")
@workspace_option
@option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    show_default="table, or what the suffix of --output says",
    help="How to write the rows. JSON is a list of objects, with null for NaN and infinity.",
)
@json_rows_option
@option("--output", envvar=None, metavar="FILE", type=click.Path(), help="Write to this file instead of stdout.")
@force_option
def query(sql: str, workspace: str, form: str | None, as_json: bool, output: str | None, force: bool) -> None:
    """Put one SQL statement to the tables of a workspace.

    The tables are samples, rejects, il, core_sets, clusters, ledger and metrics; the dialect is DuckDB's; - reads the
    statement from stdin. It can read the files of the workspace and nothing else, and write nothing.
    """
    from rhostream.loaders.storage import OutputFile
    from rhostream.pipeline.sql import query as run_query

    file = None if output is None else OutputFile(output, workspace=workspace, force=force)
    rows = run_query(workspace, sys.stdin.read() if sql == "-" else sql)
    print_table(rows, chosen_format(form, output, as_json), file)


@click.command(
    epilog=examples(
        "rho views --workspace runs/demo > views.sql && duckdb -init views.sql",
        "rho views --workspace runs/demo | grep 'VIEW ledger'",
    )
)
@workspace_option
@json_option
def views(workspace: str, as_json: bool) -> None:
    """Print a workspace's tables as CREATE VIEW statements.

    They are for DuckDB's own shell, or for any other program with DuckDB in it. The paths in them are absolute. A
    table that has no file yet is an empty view: print them again after the next stage.
    """
    from rhostream.loaders.storage import Workspace
    from rhostream.pipeline.sql import create_views

    statements = create_views(Workspace(workspace))
    say_result({"statements": statements}, "\n".join(statements), as_json)
