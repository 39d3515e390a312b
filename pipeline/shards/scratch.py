"""A folder for what is written on the way to a result, where there is more of it than memory should hold."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rhostream.loaders.storage import Workspace
from rhostream.pipeline.jobs import TemporaryFolder

_FOLDER: Final = ".listing"


class Scratch:
    """Files that are gone when their user ends; the folder is made when it is first asked for.

    Args:
        inside: where the folder lies, a temporary one of the system's where None.
    """

    def __init__(self, inside: Path | None) -> None:
        self._folder = None if inside is None else inside / _FOLDER
        self._outside: TemporaryFolder | None = None

    def folder(self) -> Path:
        """A new folder of its own each time."""
        if self._folder is None:
            self._outside = TemporaryFolder("rhostream-")
            self._folder = self._outside.path
        self._folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=self._folder))

    def remove(self) -> None:
        if self._outside is not None:
            self._outside.remove()
        elif self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def scratch_space(workspace: Workspace | None) -> Iterator[Scratch]:
    """Scratch in a local workspace, whose lock is held, and where a killed run may have left some; else where `TMPDIR`
    says."""
    scratch = Scratch(Path(workspace.root) if workspace is not None and workspace.is_local else None)
    scratch.remove()
    try:
        yield scratch
    finally:
        scratch.remove()
