"""`run.json` and `metrics.jsonl` of a training run, as whoever asks of a run reads them."""

from typing import Any, Final

import pyarrow as pa

from rhostream.loaders.storage import UnreadableError, Workspace
from rhostream.schema import METRICS

_FACTS: Final[dict[str, Any]] = {
    "run": str,
    "format_version": int,
    "config": dict,
    "steps": int,
    "evaluate_every": int,
    "il": str | None,
    "evaluated_on": str | None,
}
_KINDS: Final[dict[pa.DataType, Any]] = {pa.string(): str, pa.int32(): int, pa.int64(): int, pa.float64(): (int, float)}


def run_facts_file(run: str) -> str:
    return f"runs/{run}/run.json"


def run_metrics_file(run: str) -> str:
    return f"runs/{run}/metrics.jsonl"


def read_run_facts(workspace: Workspace, run: str) -> dict[str, Any]:
    """What determines the result of a run, as its run.json tells; empty where it has none: another trainer's ledger.

    Raises:
        WorkspaceError: it is damaged, or another run's.
    """
    file = run_facts_file(run)
    if not workspace.exists(file):
        return {}
    facts: dict[str, Any] = workspace.read_json(file, **_FACTS)
    with workspace.reading(file):
        _require_own(facts.pop("run", run), run)
        if "format_version" not in facts:
            raise UnreadableError("describes no run (it has no format_version)")
    return facts


def write_run_facts(workspace: Workspace, run: str, facts: dict[str, Any]) -> None:
    workspace.write_json(run_facts_file(run), {"run": run, **facts})


def read_run_metrics(workspace: Workspace, run: str) -> list[dict[str, Any]]:
    """The lines of `rhostream.schema.METRICS`, by step; none where nothing was measured.

    Raises:
        WorkspaceError: they are damaged, hold values that are none of the schema's, or are another run's.
    """
    file = run_metrics_file(run)
    if not workspace.exists(file):
        return []
    lines = workspace.read_lines(file)
    with workspace.reading(file):
        for number, line in enumerate(lines, 1):
            _require_own(line.get("run", run), run)
            if type(line.get("step")) is not int:
                raise UnreadableError(f"has a line {number} that tells no step")
            for field in METRICS:
                value = line.get(field.name)
                if value is not None and (isinstance(value, bool) or not isinstance(value, _KINDS[field.type])):
                    raise UnreadableError(f"has {field.name} {value!r} in line {number}, which is {field.type}")
    return lines


def _require_own(found: Any, run: str) -> None:
    if found != run:
        raise UnreadableError(f"is of the run {found!r}")
