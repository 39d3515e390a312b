"""`rho status`."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from rhostream.cli.options import examples, json_option, workspace_option
from rhostream.cli.output import say, say_json
from rhostream.cli.remedies import command

if TYPE_CHECKING:
    from rhostream.pipeline.report import WorkspaceStatus


@click.command(
    epilog=examples("rho status --workspace runs/demo", "rho status --workspace s3://bucket/runs/photos --json")
)
@workspace_option
@json_option
def status(workspace: str, as_json: bool) -> None:
    """Tell what is in a workspace, what is missing, and the next command."""
    from rhostream.pipeline.report import workspace_status

    found = workspace_status(workspace)
    if as_json:
        say_json(asdict(found) | {"next": command(found.next)})
    else:
        say(_text(found))


def _text(found: "WorkspaceStatus") -> str:
    corpus = found.corpus
    lines = [("workspace", found.workspace)]
    if corpus is not None:
        splits = ", ".join(f"{count} {split}" for split, count in corpus["samples"].items())
        kind = f"{corpus['format']}{', multi-label' if corpus['task'] == 'multi_label' else ''}"
        lines += [
            ("corpus", f"{corpus['name']} ({kind}): {corpus['classes']} classes, {corpus['shards']} shards"),
            ("samples", f"{splits}; {corpus['rejects']} of {corpus['entries']} entries refused"),
            ("thumbnails", ", ".join(found.thumbnails) or "none"),
        ]
        for model in found.il_models:
            state = f"{model.scored} of {model.shards} shards scored" if model.trained else "not trained"
            lines.append(("IL model", f"{model.name}: {state}"))
        lines += [("core set", name) for name in found.core_sets]
        lines += [("clusters", name) for name in found.clusters]
        for run in found.runs:
            state = f"{run.steps} steps, {'finished' if run.finished else 'not finished'}"
            lines.append(("run", f"{run.name}: {'the ledger of another trainer' if run.steps is None else state}"))
    lines += [("missing", what) for what in found.missing]
    lines.append(("next", command(found.next)))
    return "\n".join(f"{name:<12}{value}" for name, value in lines)
