"""What DuckDB is about to read, verified once: it reads the files of a workspace itself, and compares no seal."""

import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from glob import glob
from pathlib import Path
from typing import Final

import pyarrow as pa

from rhostream.errors import WorkspaceError
from rhostream.loaders.decode import available_cores
from rhostream.loaders.storage import UnreadableError, Workspace, decode_card, read_file
from rhostream.pipeline.jobs import read_run_metrics
from rhostream.pipeline.sql.kept_tables import States, kept_folder
from rhostream.pipeline.sql.views import VIEWS, promised

#: The column that says whose file it is; the name of its folder says so, too.
_OWNERS: Final = {
    "il": "il_model",
    "core_sets": "core_set",
    "clusters": "clustering",
    "ledger": "run",
    "history": "run",
}


def verify(workspace: Workspace, views: Collection[str]) -> dict[str, States]:
    """Read the files of these views that have not been read since they were written, and compare their seals.

    Which have been is kept in the cache folder. Files in a store are left out: a store checks its own.

    Returns:
        By view the files that were looked at.

    Raises:
        WorkspaceError: a file is damaged, lies in the folder of another run or model, or has a column of another type.
    """
    if not workspace.is_local:
        return {}
    memory = _memory(workspace)
    known = _remembered(memory)
    found = {view: dict(_states(workspace.root, VIEWS[view][1])) for view in sorted(views)}
    new = [(view, name) for view, states in found.items() for name, state in states.items() if known.get(name) != state]
    if not new:
        return found
    with ThreadPoolExecutor(available_cores()) as pool:
        list(
            pool.map(
                partial(_verify, workspace, {view: promised(workspace, view) for view in views}),
                *zip(*new, strict=True),
            )
        )
    _remember(memory, known | {name: state for states in found.values() for name, state in states.items()})
    return found


def _states(root: str, pattern: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Names, relative to `root`, of the files that the pattern matches, sorted, and their states."""
    for name in sorted(glob(pattern, root_dir=root, include_hidden=True)):  # noqa: PTH207 - three times as fast
        status = os.stat(f"{root}/{name}")  # noqa: PTH116 - tens of thousands of them
        yield name, (status.st_size, status.st_mtime_ns)


def _verify(workspace: Workspace, columns: Mapping[str, pa.Schema], view: str, name: str) -> None:
    owner = name.split("/")[1]
    if view == "metrics":
        read_run_metrics(workspace, owner)
        return
    found = workspace.check_table(name, columns[view], _OWNERS.get(view))
    with workspace.reading(name):
        if strange := found - {owner}:
            raise UnreadableError(
                f"is of {min(strange)!r}", remedy="give its folder that name again, or move it out of the workspace"
            )


def _memory(workspace: Workspace) -> Path:
    return kept_folder(workspace) / "verified.json"


def _remembered(memory: Path) -> States:
    try:
        return {name: (size, time) for name, (size, time) in decode_card(read_file(memory)).items()}
    except (FileNotFoundError, UnreadableError, ValueError, TypeError, AttributeError):
        return {}


def _remember(memory: Path, states: States) -> None:
    """Where the cache folder cannot be written, the next query verifies again."""
    place = Workspace(memory.parent)
    try:
        place.write_json(memory.name, states)
    except (OSError, WorkspaceError):
        return
