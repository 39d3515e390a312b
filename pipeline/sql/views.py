"""DuckDB views over the tables of a workspace."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Final

import pyarrow as pa

from rhostream import schema
from rhostream.errors import Remedy, Stage, WorkspaceError
from rhostream.former import LEDGER_REASONS, METRICS_COLUMNS
from rhostream.loaders.index import METADATA_NAME
from rhostream.loaders.storage import Workspace

#: Every view: its columns, and the files (relative to the workspace) whose rows it shows.
VIEWS: Final[dict[str, tuple[pa.Schema, str]]] = {
    "samples": (schema.SAMPLES, "index/*.parquet"),
    "rejects": (schema.REJECTS, "rejects/*.parquet"),
    "il": (schema.IL, "il/*/scores/*.parquet"),
    "core_sets": (schema.CORE_SETS, "core_sets/*/rows/*.parquet"),
    "clusters": (schema.CLUSTERS, "clusters/*/rows/*.parquet"),
    "ledger": (schema.LEDGER, "runs/*/ledger/*.parquet"),
    "history": (schema.HISTORY, "runs/*/history/*.parquet"),
    "metrics": (schema.METRICS, "runs/*/metrics.jsonl"),
}

#: What a view computes beside the columns of its files.
COMPUTED: Final[dict[str, dict[str, str]]] = {
    "metrics": {
        f"{unit}_so_far": " + ".join(f"{unit}_{cost}" for cost in schema.COSTS if cost != "evaluate")
        for unit in schema.COST_UNITS
    }
}

#: Of the view `ledger`, where a former release wrote the reason.
_REASON_TODAY: Final = (
    " REPLACE (CASE reason "
    + " ".join(f"WHEN '{old}' THEN '{today}'" for old, today in LEDGER_REASONS.items())
    + " ELSE reason END AS reason)"
)

_DUCKDB_TYPES: Final[dict[pa.DataType, str]] = {
    pa.string(): "VARCHAR",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.list_(pa.int32()): "INTEGER[]",
    pa.list_(pa.string()): "VARCHAR[]",
    pa.list_(pa.float16()): "FLOAT[]",
}


def create_views(workspace: Workspace, root: str | None = None) -> list[str]:
    """One `CREATE OR REPLACE VIEW` statement per table; a table without files is an empty view with its types.

    Files that a later stage adds are seen by the same views, except by those that were empty.

    Args:
        root: what the paths in the statements start with; by default the workspace's absolute path or URL, so that
            the statements work in any DuckDB, from any folder.

    Raises:
        WorkspaceError: there is no workspace.
    """
    require_workspace(workspace)
    start = location(workspace) if root is None else root
    return [f"CREATE OR REPLACE VIEW {name} AS {rows_of(workspace, name, start)};" for name in VIEWS]


def rows_of(workspace: Workspace, view: str, root: str) -> str:
    """SQL: the rows of a view; `root` is what paths start with."""
    columns, pattern = VIEWS[view]
    if _any_file(workspace, "", pattern.split("/")):
        rows = _select(view, columns, f"{escape_glob(root)}/{pattern}")
    else:
        rows = _select_nothing(promised(workspace, view))
    return f"SELECT {_computed(view)} FROM ({rows})"


def location(workspace: Workspace) -> str:
    """The workspace's absolute path without symbolic links, or its URL."""
    return str(Path(workspace.root).resolve()) if workspace.is_local else workspace.location.rstrip("/")


def escape_glob(path: str) -> str:
    """A DuckDB file pattern that matches `path` alone."""
    return re.sub(r"([\[*?])", r"[\1]", path)


def quote(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def require_workspace(workspace: Workspace) -> None:
    """Raises WorkspaceError where there is none."""
    folders = {pattern.split("/")[0] for _, pattern in VIEWS.values()}
    if any(workspace.exists(name) for name in (METADATA_NAME, *sorted(folders))):
        return
    problem = "holds no workspace" if workspace.exists("") else "does not exist"
    raise WorkspaceError(
        f"workspace {workspace.location!r} {problem}: name another one, or", Remedy(Stage.SHARDS, workspace.location)
    )


def promised(workspace: Workspace, view: str) -> pa.Schema:
    """The columns of a view's files, of the workspace's corpus as far as that tells."""
    task, fields = "classification", ("image",)
    with suppress(FileNotFoundError, WorkspaceError):
        corpus = workspace.read_json(METADATA_NAME, task=str, fields=list)
        task, fields = corpus.get("task", task), tuple(corpus.get("fields", fields))
    return schema.samples_of(fields, task) if view == "samples" else schema.of_task(VIEWS[view][0], task)


def _any_file(workspace: Workspace, folder: str, pattern: list[str]) -> bool:
    first, *rest = pattern
    if not rest:
        return bool(workspace.names(folder, first.removeprefix("*")))
    inside = workspace.names(folder) if first == "*" else [first]
    return any(_any_file(workspace, f"{folder}/{name}".lstrip("/"), rest) for name in inside)


def _computed(view: str) -> str:
    return ", ".join(["*", *(f"{formula} AS {name}" for name, formula in COMPUTED.get(view, {}).items())])


def _select(name: str, columns: pa.Schema, pattern: str) -> str:
    # hive_partitioning: a workspace below a folder named "seed=1" must not gain a column `seed`.
    if pattern.endswith(".parquet"):
        # union_by_name: the manifest's extra columns need not be in every file.
        rows = f"read_parquet({quote(pattern)}, union_by_name = true, hive_partitioning = false)"
        return f"SELECT *{_REASON_TODAY if name == 'ledger' else ''} FROM {rows}"
    former = [columns.field(today).with_name(old) for old, today in METRICS_COLUMNS.items()]
    types = ", ".join(f"{quote(field.name)}: {quote(_DUCKDB_TYPES[field.type])}" for field in [*columns, *former])
    renamed = ", ".join(f"coalesce({today}, {old}) AS {today}" for old, today in METRICS_COLUMNS.items())
    # ignore_errors: where nothing is verified, as in another DuckDB, one line of another shape must hide no other.
    return (
        f"SELECT * EXCLUDE ({', '.join(METRICS_COLUMNS)}) REPLACE ({renamed}) "
        f"FROM read_json({quote(pattern)}, format = 'newline_delimited', columns = {{{types}}}, "
        f"ignore_errors = true, hive_partitioning = false) WHERE {columns.names[0]} IS NOT NULL"
    )


def _select_nothing(columns: pa.Schema) -> str:
    nulls = ", ".join(f'NULL::{_DUCKDB_TYPES[field.type]} AS "{field.name}"' for field in columns)
    return f"SELECT {nulls} WHERE false"
