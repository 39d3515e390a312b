"""The history of a run: its ledger rolled up to one row per sample, so that questions need not read every candidate."""

import json
from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from rhostream.errors import WorkspaceError
from rhostream.loaders.storage import UnreadableError, Workspace
from rhostream.schema import HISTORY, LEDGER

#: Metadata of the history's Parquet: how many parts of the ledger it sums up, the last of them and its rows.
PARTS_KEY: Final = b"rhostream.ledger_parts"

ROWS_AT_ONCE: Final = 4_000_000  # of the ledger; bounds the memory
_COLUMNS: Final = ["key", "step", "loss", "il", "score", "correct", "selected", "reason"]
_COUNTS: Final = ("drawn", "selected", "scored", "filtered", "il_missing", "set_aside", "unreadable")
#: The reasons of the ledger behind those of the counts that one gives.
_REASONS: Final = {
    "filtered": ("filtered",),
    "il_missing": ("il_missing",),
    "set_aside": ("validation", "not_in_core_set"),
    "unreadable": ("unreadable",),
}


def update_history(workspace: Workspace, run: str, rank: int) -> None:
    """Add to the history of a run what its ledger has gained, or make it anew where the ledger went back.

    It is a function of the ledger alone, whenever and however often it was brought up to date: rows in the order of
    their keys, counts, and the last values. 1M samples and 1M new candidates take about 2 s of
    one core and 0.5 GB.
    """
    name, parts = history_name(run, rank), _parts(workspace, run, rank)
    history, covered = _so_far(workspace, name, parts)
    missing = parts[covered:]
    if not missing:
        return
    waiting: list[pa.Table] = []
    for part in missing:
        rows = workspace.read_table(part, ["run", *_COLUMNS], LEDGER)
        with workspace.reading(part):
            if strange := set(rows["run"].unique().to_pylist()) - {run}:
                raise UnreadableError(f"is of the run {min(strange)!r}")
        waiting.append(_as_history(rows))
        if sum(table.num_rows for table in waiting) >= ROWS_AT_ONCE:
            history, waiting = _merged([history, *waiting]), []
    if waiting:
        history = _merged([history, *waiting])
    runs = pa.array([run] * history.num_rows, pa.string())
    table = pa.table({"run": runs, **{name: history[name] for name in history.column_names}})
    record = {PARTS_KEY: json.dumps([len(parts), parts[-1], workspace.count_rows(parts[-1])]).encode()}
    workspace.write_table(name, table.select(HISTORY.names).cast(HISTORY).replace_schema_metadata(record))


def forget_history(workspace: Workspace, run: str, rank: int) -> None:
    """Remove a history that sums up more than the ledger now holds; `update_history` makes it anew."""
    name = history_name(run, rank)
    if not _so_far(workspace, name, _parts(workspace, run, rank))[1]:
        workspace.remove(name)


def history_name(run: str, rank: int) -> str:
    return f"runs/{run}/history/rank{rank}.parquet"


def _parts(workspace: Workspace, run: str, rank: int) -> list[str]:
    folder = f"runs/{run}/ledger"
    return [f"{folder}/{name}" for name in workspace.names(folder, f"-rank{rank}.parquet")]


def _so_far(workspace: Workspace, name: str, parts: Sequence[str]) -> tuple[pa.Table, int]:
    """The history, and how many of the parts it sums up.

    An empty one where it is not the sum of the first parts, or is damaged: it is made anew from the ledger.
    """
    if workspace.exists(name):
        try:
            table = workspace.read_table(name, schema=HISTORY)
            covered, *last = json.loads((table.schema.metadata or {}).get(PARTS_KEY, b"[0]"))
            newest = parts[covered - 1] if 0 < covered <= len(parts) else ""
            current = newest and last == [newest, workspace.count_rows(newest)]
        except (WorkspaceError, ValueError):
            current = False
        if current:
            return table.replace_schema_metadata().drop_columns(["run"]), covered
    return pa.schema([field for field in HISTORY if field.name != "run"]).empty_table(), 0


def _as_history(rows: pa.Table) -> pa.Table:
    """Each row of the ledger as the history of a sample that was drawn once."""
    scored, count = pc.is_valid(rows["score"]), pa.int32()
    return pa.table(
        {
            "key": rows["key"],
            "drawn": pa.repeat(pa.scalar(1, count), rows.num_rows),
            "selected": rows["selected"].cast(count),
            "scored": scored.cast(count),
            **{
                name: pc.is_in(rows["reason"], value_set=pa.array(reasons)).cast(count)
                for name, reasons in _REASONS.items()
            },
            "latest_step": rows["step"],
            "scored_step": pc.if_else(scored, rows["step"], None),
            "latest_loss": rows["loss"],
            "latest_correct": rows["correct"],
            "latest_selected": pc.if_else(scored, rows["selected"], None),
            "il": rows["il"],
        }
    )


def _merged(tables: Sequence[pa.Table]) -> pa.Table:
    """One row a key: sums of the counts, and of everything else the last value that is not null."""
    rows = pa.concat_tables([table.cast(tables[0].schema) for table in tables])
    values = [name for name in rows.column_names if name != "key"]
    how = {name: "sum" if name in _COUNTS else "last" for name in values}
    # In one thread: the order of the rows decides which value is the last. Sorted: that of the groups is nobody's.
    groups = rows.group_by("key", use_threads=False).aggregate(list(how.items())).sort_by("key")
    names = {f"{name}_{function}": name for name, function in how.items()}
    named = groups.rename_columns([names.get(column, column) for column in groups.column_names])
    return named.select(rows.column_names).cast(rows.schema)
