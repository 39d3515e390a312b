"""One writer per folder of a workspace: advisory locks, which vanish with the process that holds them."""

import fcntl
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rhostream.errors import WorkspaceError
from rhostream.loaders.storage import Workspace


@contextmanager
def exclusive_lock(workspace: Workspace, command: str, folder: str = "", *, workers: str = "") -> Iterator[None]:
    """Hold a folder of the workspace against a second `command`, and wait until the workers of a killed one are gone.

    A remote workspace, and a file system without locks, are not protected. While it is held the folder itself must
    stay, see `remove_contents`.

    Args:
        folder: name in the workspace, "" for all of it; made where it is missing.
        workers: the folder that the worker processes hold, see `hold_as_worker`; "" where there are none.

    Raises:
        WorkspaceError: another process is writing to it.
    """
    if not workspace.is_local:
        yield
        return
    path = Path(workspace.path(folder))
    with _opened(path) as whole:
        try:
            fcntl.flock(whole, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkspaceError(
                f"another `{command}` is writing to {path if folder else workspace.location}: wait for it to end, or "
                "stop it, and run this one again"
            ) from error
        except OSError:
            pass
        if workers:
            with _opened(Path(workspace.path(workers))) as parts, suppress(OSError):
                fcntl.flock(parts, fcntl.LOCK_EX)
                fcntl.flock(parts, fcntl.LOCK_UN)
        yield


def hold_as_worker(workspace: Workspace, folder: str) -> None:
    """Let a later `exclusive_lock` wait until this worker process ends; it ends here where its parent is dead."""
    if workspace.is_local:
        path = Path(workspace.path(folder))
        path.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_SH)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)  # killed before the lock was held: its successor may be writing already


def remove_contents(workspace: Workspace, folder: str) -> None:
    """Empty a folder on which a lock is held: the lock is the folder's, and would not hold for a new one."""
    if not workspace.is_local:
        workspace.remove(folder)
        return
    path = Path(workspace.path(folder))
    for entry in path.iterdir() if path.exists() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise WorkspaceError(f"cannot write to {path}: {error.strerror}; name another --workspace") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
