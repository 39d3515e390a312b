"""The lease of a driver on a folder of a workspace: who works through several machines, or on a store without locks.

It is a small file that its holder renews. Whoever finds one that is not renewed takes it over: its holder is dead.
"""

import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from rhostream.errors import WorkspaceError
from rhostream.loaders.storage import Workspace

SECONDS_BETWEEN_RENEWALS = 5.0
_MISSED = 3  # renewals, after which a holder is dead
_SECONDS_TO_SETTLE = 0.5  # in which of two that take it at once the later one is seen by both


@dataclass(frozen=True, kw_only=True)
class _Held:
    """What the file says.

    Attributes:
        holder: a random name.
        command: that it runs.
        machine, process, started: where; the process's number, and when it began, mean something on that machine alone.
        renewed: how often.
    """

    holder: str
    command: str
    machine: str
    process: int
    started: float
    renewed: int


@contextmanager
def lease(workspace: Workspace, folder: str, command: str) -> Iterator[None]:
    """Hold a folder of the workspace, from whatever machine.

    Raises:
        WorkspaceError: another driver holds it; at the end, where another one took it, as it was not renewed in time.
    """
    file = _file(folder)
    refuse_held(workspace, folder)
    mine = _Held(
        holder=secrets.token_hex(8),
        command=command,
        machine=_machine(),
        process=os.getpid(),
        started=psutil.Process().create_time(),
        renewed=0,
    )
    workspace.write_json(file, asdict(mine))
    time.sleep(_SECONDS_TO_SETTLE)
    _require_mine(workspace, file, mine)
    ended, lost = threading.Event(), threading.Event()

    def renew() -> None:
        count = 0
        while not ended.wait(SECONDS_BETWEEN_RENEWALS):
            count += 1
            with suppress(WorkspaceError, OSError):  # the next one may succeed
                found = _read(workspace, file)
                if found is not None and found.holder != mine.holder:
                    lost.set()
                    return
                workspace.write_json(file, asdict(mine) | {"renewed": count})

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if not lost.is_set():
            workspace.remove(file)
    if lost.is_set():
        raise WorkspaceError(
            f"another `{command}` has taken {_named(workspace, folder)} over, as this one was not heard of for "
            f"{_MISSED * SECONDS_BETWEEN_RENEWALS:.0f} s: run the same command again when it has ended"
        )


def refuse_held(workspace: Workspace, folder: str) -> None:
    """Raises WorkspaceError where a living driver holds the folder; that of a dead one is gone afterwards."""
    file = _file(folder)
    found = _read(workspace, file)
    if found is None:
        return
    if found.machine == _machine():
        alive = _is_alive(found)
    else:
        begin, last = time.monotonic(), found
        while (alive := last == found) and time.monotonic() < begin + _MISSED * SECONDS_BETWEEN_RENEWALS:
            time.sleep(SECONDS_BETWEEN_RENEWALS / 5)
            last = _read(workspace, file) or found
        alive = last != found
    if alive:
        raise WorkspaceError(
            f"another `{found.command}` is writing to {_named(workspace, folder)}, as process {found.process} of "
            "its machine: wait for it to end, or stop it, and run this one again"
        )
    workspace.remove(file)


def _is_alive(holder: _Held) -> bool:
    """Of one on this machine."""
    try:
        return bool(psutil.Process(holder.process).create_time() == holder.started)
    except psutil.Error:
        return False


def _require_mine(workspace: Workspace, file: str, mine: _Held) -> None:
    found = _read(workspace, file)
    if found is None or found.holder != mine.holder:
        raise WorkspaceError(
            f"another `{mine.command}` has begun at the same moment: wait for it to end, and run this one again"
        )


def _read(workspace: Workspace, file: str) -> _Held | None:
    """None where nobody holds it, or what is there is no lease."""
    if not workspace.exists(file):
        return None
    try:
        return workspace.read_record(file, _Held)
    except (WorkspaceError, FileNotFoundError):
        return None


def _file(folder: str) -> str:
    return f"{folder}/.lease.json" if folder else ".lease.json"


def _named(workspace: Workspace, folder: str) -> str:
    return workspace.path(folder) if folder else workspace.location


def _machine() -> str:
    """Tells one machine, since it was started, and one container of it from another."""
    told = []
    for file in ("/proc/sys/kernel/random/boot_id",):
        with suppress(OSError):
            told.append(Path(file).read_text().strip())
    with suppress(OSError):
        told.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 - no file is meant
    return " ".join(told)
