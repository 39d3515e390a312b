"""Files that interrupted runs have left in a workspace."""

from collections.abc import Mapping, Set
from pathlib import Path

from rhostream.loaders.workspace import TEMPORARY_SUFFIX, Workspace


def remove_leftovers(workspace: Workspace, keep: Mapping[str, Set[str]]) -> None:
    """Remove what runs killed before their first finished unit have left: with other settings it has other names.

    Args:
        keep: for each folder the names of the files that belong there.
    """
    for folder, names in keep.items():
        for name in workspace.names(folder):
            if name not in names:
                workspace.remove(f"{folder}/{name}")
        if workspace.is_local:
            for temporary in Path(workspace.path(folder)).glob(f"*{TEMPORARY_SUFFIX}"):
                temporary.unlink()
