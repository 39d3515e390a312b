"""The rows of views that lie in many small files, kept in the cache folder as one file each: opening takes longer."""

import hashlib
from pathlib import Path
from typing import Final

import pyarrow as pa

from rhostream.errors import WorkspaceError
from rhostream.loaders.storage import Workspace, cache_folder

#: Of each file, by name: its size and time.
States = dict[str, tuple[int, int]]

_MANY_FILES: Final = 64
_SMALL_FILE: Final = 64 << 10  # bytes, on average
_MOST_KEPT: Final = 256 << 20  # bytes of the files of one view, whose rows are to fit into memory
_MADE_OF_KEY: Final = b"rhostream.made_of"  # of the metadata


def kept_folder(workspace: Workspace) -> Path:
    """Where is kept what is known of the files of a local workspace; it need not be there."""
    digest = hashlib.sha256(str(Path(workspace.root).resolve()).encode()).hexdigest()
    return cache_folder().absolute() / "queries" / digest[:32]


class KeptTable:
    """The rows of one view, as the files of `states` tell them through the SQL `rows`.

    Attributes:
        path: of the Parquet file, whether it is there or not.
    """

    def __init__(self, folder: Path, view: str, states: States, rows: str) -> None:
        self.path = folder / f"{view}.parquet"
        self._made_of = hashlib.sha256(repr((rows, states)).encode()).hexdigest().encode()

    def is_there(self) -> bool:
        """Whole, and made of these very files by this SQL?"""
        try:
            found = Workspace(self.path.parent).read_schema(self.path.name, pa.schema([]))
        except (OSError, WorkspaceError):
            return False
        return bool((found.metadata or {}).get(_MADE_OF_KEY) == self._made_of)

    def keep(self, table: pa.Table) -> None:
        """Where the cache folder cannot be written, the next query opens all files again."""
        try:
            Workspace(self.path.parent).write_table(
                self.path.name, table.replace_schema_metadata({_MADE_OF_KEY: self._made_of})
            )
        except (OSError, WorkspaceError):
            return


def is_scattered(states: States) -> bool:
    """Do small files take longer to open than to read, and fit into memory together?"""
    size = sum(size for size, _ in states.values())
    return len(states) > _MANY_FILES and size <= min(_MOST_KEPT, _SMALL_FILE * len(states))
