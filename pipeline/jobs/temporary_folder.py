"""Folders among the system's temporary ones that are gone at the end, however a process ends short of SIGKILL."""

import atexit
import secrets
import shutil
import tempfile
from pathlib import Path

_held: set[Path] = set()  # each is noted before it is made, so that no signal can come between


class TemporaryFolder:
    """A new folder that only this user can read.

    Args:
        prefix: of its name.

    Attributes:
        path: of the folder.
    """

    def __init__(self, prefix: str) -> None:
        self.path = Path(tempfile.gettempdir(), f"{prefix}{secrets.token_hex(8)}")
        _held.add(self.path)
        self.path.mkdir(mode=0o700)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        _held.discard(self.path)


@atexit.register
def remove_temporary_folders() -> None:
    """Remove what a signal has kept its user from removing; for a process that ends without the interpreter's end."""
    for path in tuple(_held):  # threads may still be at work
        shutil.rmtree(path, ignore_errors=True)
        _held.discard(path)
