"""`rho tokenize`: the token ids of the texts, beside the shards."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rhostream.cli.options import chosen_settings, command, json_option, settings_options, workspace_option
from rhostream.cli.output import say, say_json
from rhostream.pipeline.config import TokenizeConfig

if TYPE_CHECKING:
    from rhostream.pipeline.tokens import TokensSummary


@command(
    "rho tokenize --workspace runs/reviews",
    "rho tokenize --workspace runs/reviews --tokenizer models/albert-base-v2 --text-length 64",
)
@workspace_option
@settings_options(TokenizeConfig)
@click.option("--overwrite", is_flag=True, help="Make again what is already made.")
@json_option
def tokenize(workspace: str, as_json: bool, **_: Any) -> None:
    """Store the token ids of every text beside its shard.

    Streams with the same tokenizer and length then read these in place of the texts. Run the same command again after
    an interruption: it goes on with the shards that are missing.
    """
    from rhostream.pipeline.tokens import write_tokens

    summary = write_tokens(workspace, chosen_settings(TokenizeConfig))
    if as_json:
        say_json(asdict(summary))
    else:
        say(text(summary))


def text(summary: "TokensSummary") -> str:
    """The summary in one line."""
    mean = summary.ids / summary.rows if summary.rows else 0.0
    return (
        f"tokens {summary.name} of {', '.join(summary.splits)}: {summary.rows} texts in {summary.shards} shards, "
        f"{summary.shards_made} made in {summary.seconds:.1f} s; {summary.ids} tokens ({mean:.1f} a text)"
    )
