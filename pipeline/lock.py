"""One writer per workspace: advisory locks on its folders, which vanish with the process that holds them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rhostream.errors import WorkspaceError
from rhostream.loaders.workspace import Workspace

WORKERS_FOLDER = "shards"


@contextmanager
def only_writer(workspace: Workspace, command: str) -> Iterator[None]:
    """Hold the workspace against a second `command`, and wait until the workers of a killed one are gone.

    A remote workspace, and a file system without locks, are not protected.

    Raises:
        WorkspaceError: another process is writing to it.
    """
    if not workspace.is_local:
        yield
        return
    with _folder(Path(workspace.path(""))) as whole, _folder(Path(workspace.path(WORKERS_FOLDER))) as parts:
        try:
            fcntl.flock(whole, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkspaceError(
                f"another `{command}` is writing to {workspace.location}: wait for it to end, or stop it, and run this "
                "one again"
            ) from error
        except OSError:
            pass
        with suppress(OSError):
            fcntl.flock(parts, fcntl.LOCK_EX)
            fcntl.flock(parts, fcntl.LOCK_UN)
        yield


def hold_as_worker(workspace: Workspace) -> None:
    """Let a later `only_writer` wait for this process, until it ends."""
    if workspace.is_local:
        folder = Path(workspace.path(WORKERS_FOLDER))
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH)


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise WorkspaceError(f"cannot write to {path}: {error.strerror}; name another --workspace") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
