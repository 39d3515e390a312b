"""One writer per folder of a workspace: advisory locks, which vanish with the process that holds them."""

import fcntl
import multiprocessing
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rhostream.errors import WorkspaceError
from rhostream.loaders.storage import Workspace, write_apart
from rhostream.pipeline.jobs.engine import Engine
from rhostream.pipeline.jobs.lease import lease, refuse_held


@contextmanager
def exclusive_lock(
    workspace: Workspace, command: str, folder: str = "", *, workers: str = "", engine: Engine = Engine()
) -> Iterator[None]:
    """Hold a folder of the workspace against a second `command`, and wait until the workers of a killed one are gone.

    Static jobs hold it together, against all others. The driver of a Ray cluster takes a lease as well, which holds
    on other machines and in a store; else a remote workspace, and a file system without locks, are not protected.
    While it is held the folder itself must stay, see `remove_contents`.

    Args:
        folder: name in the workspace, "" for all of it; made where it is missing.
        workers: what the worker processes hold, see `hold_as_worker`; "" where there are none. Not `folder`, which
            this process holds against all others.

    Raises:
        WorkspaceError: another process is writing to it.
    """
    with ExitStack() as held:
        if workspace.is_local:
            held.enter_context(_locked(workspace, command, folder, workers, shared=engine.is_shared))
        if engine.is_shared:
            write_apart(secrets.token_hex(6))
            held.callback(write_apart, "")
        if engine.name == "ray":
            held.enter_context(lease(workspace, folder, command))
        else:
            refuse_held(workspace, folder)
        yield


@contextmanager
def one_at_a_time(workspace: Workspace, folder: str, engine: Engine) -> Iterator[None]:
    """Within the block a static job is alone among those that hold the workspace with it; it waits for its turn.

    In a store, and on a file system without locks, nothing holds them apart.

    Args:
        folder: name in the workspace that they take turns by, made where it is missing; no other lock's.
    """
    if not (engine.is_shared and workspace.is_local):
        yield
        return
    with _opened(Path(workspace.path(folder))) as held:
        with suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


@contextmanager
def _locked(workspace: Workspace, command: str, folder: str, workers: str, *, shared: bool) -> Iterator[None]:
    path = Path(workspace.path(folder))
    parts = [Path(workspace.path(workers))] if workers else []
    with _gone_if_in_vain([path, *parts]), _opened(path) as whole:
        try:
            fcntl.flock(whole, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkspaceError(
                f"another `{command}` is writing to {path if folder else workspace.location}: wait for it to end, or "
                "stop it, and run this one again"
            ) from error
        except OSError:
            pass
        for part in parts if not shared else ():
            with _opened(part) as there, suppress(OSError):
                fcntl.flock(there, fcntl.LOCK_EX)
                fcntl.flock(there, fcntl.LOCK_UN)
        yield


def hold_as_worker(workspace: Workspace, folder: str) -> None:
    """Let a later `exclusive_lock` wait until this worker process ends; it ends here where its parent is dead.

    Args:
        folder: or a file, one that is never written anew.
    """
    if workspace.is_local:
        path = Path(workspace.path(folder))
        if not path.is_file():
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
def _gone_if_in_vain(folders: Sequence[Path]) -> Iterator[None]:
    """After an error, folders that were not there before and hold nothing are gone again; inner ones come last."""
    new = [folder for folder in folders if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in reversed(new):
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        if not path.is_file():
            path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise WorkspaceError(f"cannot write to {path}: {error.strerror}; name another --workspace") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
