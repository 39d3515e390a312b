"""What a workspace is made from must lie where no workspace writes, lest it be overwritten or removed."""

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final

from rhostream.errors import ConfigError
from rhostream.loaders.storage import Workspace, remote

FOLDERS: Final = ("shards", "index", "rejects", "scans", "thumbnails", "views")


def refuse_sources_inside(workspace: Workspace, sources: Iterable[str]) -> None:
    """To be called before anything is written.

    Args:
        sources: local paths or URLs of tars, or of the root of a corpus.

    Raises:
        ConfigError: one of them lies in a folder of the workspace that we write to, symbolic links followed.
    """
    folders = {folder: _places(workspace.path(folder)) for folder in FOLDERS}
    found = []
    for source in sources:
        named = _places(source)
        found += [
            (source, folder)
            for folder, places in folders.items()
            if any(_is_inside(place, other) for place in named for other in places)
        ][:1]
    if found:
        source, folder = found[0]
        raise ConfigError(
            f"{source} ({len(found)} such) lies in {workspace.path(folder)}, where workspace {workspace.location!r} "
            "keeps and removes files of its own: name another --workspace, for instance "
            f"{workspace.location.rstrip('/')}/rho"
        )


def _places(source: str) -> set[tuple[str, str]]:
    """(file system, path): as named, where the symbolic links above it lead, and where it leads itself."""
    if remote.is_remote(source):
        location, inside = remote.filesystem(source)
        return {(type(location).__name__, inside.rstrip("/"))}
    named = Path(source.removeprefix("file://").removeprefix("local://")).absolute()
    path = Path(os.path.normpath(named))
    where = _resolved(named.parent) / named.name
    leads = where.resolve() if named.name == ".." or where.is_symlink() else where
    return {("", str(place)) for place in (path, _resolved(path.parent) / path.name, leads)}


@lru_cache(maxsize=64)
def _resolved(folder: Path) -> Path:
    """Of a folder with thousands of tars once."""
    return folder.resolve()


def _is_inside(place: tuple[str, str], folder: tuple[str, str]) -> bool:
    return place[0] == folder[0] and f"{place[1]}/".startswith(f"{folder[1]}/")
