"""`rho explain`: ready questions over the tables of a workspace."""

import re
from typing import Any

import click

from rhostream.cli.options import examples, force_option, given, json_rows_option, option, workspace_option
from rhostream.cli.output import FORMATS, chosen_format, print_table, say
from rhostream.pipeline.explain import QUESTIONS

TABLE_ROWS = 20  # of an answer that people read, unless they say otherwise


class StepsType(click.ParamType[tuple[int | None, int | None]]):
    """`A:B`, `A:` or `:B`, both ends included."""

    name = "steps"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int | None, int | None]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d*):(\d*)", str(value))
        if found is None or str(value) == ":":
            self.fail(f"{value!r} is no stretch of steps: give 100:200, 100: or :200", param, ctx)
        first, last = (int(end) if end else None for end in found.groups())
        return first, last


@click.command(
    epilog="\b\nQuestions:\n"
    + "\n".join(f"  {name:<12}{title.text}" for name, title in QUESTIONS.items())
    + "\n\n"
    + examples(
        "rho explain reasons --workspace runs/demo --run learnable",
        "rho explain skipped --workspace runs/demo --run learnable --class shirt --limit 50",
        "rho explain mislabeled --workspace runs/demo --output mislabeled.csv",
        "rho explain classes --workspace runs/demo --run learnable --by clean_label --format json",
        "rho explain diff uniform learnable --workspace runs/demo",
        "rho explain copies --workspace runs/demo --split train --output copies.csv",
        "rho explain redundant --workspace runs/demo --run learnable --sql",
    )
)
@click.argument("question")
@click.argument("runs", nargs=-1, metavar="[RUN RUN]")
@workspace_option
@option("--run", metavar="RUN", show_default="the only one", help="The training run to ask about.")
@option("--il", metavar="NAME", show_default="the run's, or the only one", help="The IL model to ask about.")
@option("--class", "class_name", metavar="NAME", help="Only samples of this class.")
@option("--split", metavar="NAME", help="Only samples of this split.")
@option("--by", metavar="COLUMN", show_default="class", help="Column of samples to group by (question classes).")
@option(
    "--steps",
    envvar="RHO_EXPLAIN_STEPS",
    type=StepsType(),
    metavar="A:B",
    default=None,
    help="Only steps A to B of the run; A: or :B also.",
)
@option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    show_default=f"{TABLE_ROWS} for a table, else 0",
    help="At most N rows; 0 for all.",
)
@click.option("--sql", "sql_only", is_flag=True, help="Print the SQL instead, for `rho query` or DuckDB.")
@option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    show_default="table, or what the suffix of --output says",
    help="How to write the rows.",
)
@json_rows_option
@option("--output", envvar=None, metavar="FILE", type=click.Path(), help="Write to this file instead of stdout.")
@force_option
def explain(
    question: str,
    runs: tuple[str, ...],
    workspace: str,
    steps: tuple[int | None, int | None] | None,
    limit: int | None,
    sql_only: bool,
    form: str | None,
    as_json: bool,
    output: str | None,
    force: bool,
    **narrowed: Any,
) -> None:
    """Answer a ready question about what is selected, what is skipped, and why.

    What counts as redundant, likely mislabeled and so on is defined in rhostream/pipeline/explain/reasons.py; --sql
    prints the statement behind an answer, to be adapted.
    """
    from rhostream.loaders.storage import OutputFile
    from rhostream.pipeline.explain import Options, explain as answer, explanation

    # RHO_RUN and the like are set for many commands: only a flag is refused where it does not bear on the question.
    (_, environment), _ = given(*narrowed, "steps")
    takes = QUESTIONS[question].takes if question in QUESTIONS else frozenset()
    aside = {name for name in environment if name.removesuffix("_name") not in takes}
    narrowed = {name: None if name in aside else value for name, value in narrowed.items()}
    steps = None if "steps" in aside else steps
    chosen = chosen_format(form, output, as_json)
    file = None if output is None else OutputFile(output, workspace=workspace, force=force)
    rows = (TABLE_ROWS if chosen == "table" else 0) if limit is None else limit
    options = Options(steps=steps or (None, None), limit=rows or None, **narrowed)
    if sql_only:
        sql = explanation(workspace, question, *runs, options=options)
        say(f"-- {QUESTIONS[question].text}\n{sql}")
        return
    print_table(answer(workspace, question, *runs, options=options), chosen, file)
