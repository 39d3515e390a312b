"""The files of a workspace that we have written, by their names: no other one is ever removed."""

import json
import re
from collections.abc import Iterable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from rhostream.errors import WorkspaceError
from rhostream.loaders.storage import Workspace, temporary_of
from rhostream.pipeline.corpora import DamagedTarError, Member, tar_members

_SHARD: Final = r"(train|holdout|val|test)(-fold\d+)?-\d{6,}"

#: By the last part of the folder's name, which serves `thumbnails/<name>/shards` too.
_OWN: Final = {
    "shards": re.compile(rf"{_SHARD}\.tar"),
    "index": re.compile(rf"{_SHARD}\.parquet"),
    "rejects": re.compile(r"\d{6,}\.parquet"),
    "rows": re.compile(rf"{_SHARD}\.parquet"),  # of a core set
    "scores": re.compile(rf"{_SHARD}\.parquet"),
    "costs": re.compile(r"(train|score)-.+\.json"),
    "scans": re.compile(r"[0-9a-f]{32}\.parquet"),
}
_AT_ONCE: Final = 16  # requests to a store
_MOST: Final = 1 << 20  # bytes of a JSON
_MEMBERS: Final = 3  # of a sample, at most: the image or text, its label or caption, the JSON


def own_names(workspace: Workspace, folder: str) -> list[str]:
    """Names of our files directly inside one of our folders, sorted."""
    own = _OWN[folder.rpartition("/")[2]]
    return [name for name in workspace.names(folder) if own.fullmatch(name) and not _is_folder(workspace, folder, name)]


def remove_own(workspace: Workspace, keep: Mapping[str, Set[str]]) -> None:
    """Remove our files from folders of a workspace, those of killed writers included; files of others stay.

    Args:
        keep: for each folder the names of the files that belong there.
    """
    for folder, names in keep.items():
        gone = [f"{folder}/{name}" for name in own_names(workspace, folder) if name not in names]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(workspace.remove, gone))
    remove_temporaries(workspace, keep)


def remove_temporaries(workspace: Workspace, folders: Iterable[str]) -> None:
    """Remove what killed writers have left in some of our folders; a store has no such files."""
    for folder in folders if workspace.is_local else ():
        own = _OWN[folder.rpartition("/")[2]]
        for temporary in Path(workspace.path(folder)).glob("*.tmp"):
            if own.fullmatch(temporary_of(temporary.name)):
                temporary.unlink(missing_ok=True)


def refuse_foreign_tars(workspace: Workspace, known: Set[str]) -> None:
    """To be called before a shard is written or removed: others number their tars as we do.

    Args:
        known: tars in `shards/` that are ours for certain.

    Raises:
        WorkspaceError: another one has the name of a shard and was not written by us.
    """
    unknown = [name for name in own_names(workspace, "shards") if name not in known]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        ours = list(pool.map(partial(_is_ours, workspace), unknown))
    if foreign := [name for name, own in zip(unknown, ours, strict=True) if not own]:
        raise WorkspaceError(
            f"{workspace.path('shards')} holds {foreign[0]} ({len(foreign)} such), which is no shard of ours and "
            "would be written over: name another --workspace, or move them out of the way"
        )


def _is_ours(workspace: Workspace, name: str) -> bool:
    """Does the tar begin with a sample as `ShardWriter` writes it, of any task? A JSON like that nobody else has."""
    try:
        with workspace.open(f"shards/{name}") as stream:
            first = islice(tar_members(stream, lambda name: _MOST if name.endswith(".json") else 0), _MEMBERS)
            described = next((each for each in first if isinstance(each, Member) and each.content is not None), None)
        told = json.loads(described.content or b"") if described is not None else None
    except (DamagedTarError, ValueError, RecursionError):
        return False
    return (
        described is not None
        and isinstance(told, dict)
        and told.keys() >= {"key", "source", "split", "fold"}
        and described.name == f"{told['key']}.json"
    )


def _is_folder(workspace: Workspace, folder: str, name: str) -> bool:
    """What others call by such a name may be a folder, as a Parquet of Spark is."""
    return workspace.is_local and Path(workspace.path(f"{folder}/{name}")).is_dir()
