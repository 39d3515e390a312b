"""Real `rho` processes that a test can kill at any moment."""

import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from helpers import forked

#: How many times each command is ended; benchmarks/kills.py does it more often.
KILLS = int(os.environ.get("RHO_TEST_KILLS", "3"))


def rho(arguments: list[str], said: Path = Path(os.devnull), temporary: Path | None = None) -> None:
    """What the process does: the command, as a shell would start it."""
    try:
        with Path(os.devnull).open("w") as nowhere, said.open("w") as told:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(told.fileno(), 2)
        import torch

        from rhostream.cli.main import main

        torch.set_num_threads(1)
        sys.argv = ["rho", *arguments]
        if temporary is not None:
            os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    except KeyboardInterrupt:  # nothing of `rho` has begun
        os._exit(1)
    try:
        main()
    except KeyboardInterrupt as error:
        called = error.__traceback__ and error.__traceback__.tb_next
        if called is None or called.tb_lineno != main.__code__.co_firstlineno:
            raise
        os._exit(1)  # it came before the first line of `main`


def start(arguments: list[str], *, said: Path = Path(os.devnull), temporary: Path | None = None) -> Any:
    """A process that runs `rho`.

    Args:
        said: file for what it prints to stderr.
        temporary: folder for its temporary files.
    """
    return forked.begin(rho, (arguments, said, temporary))


#: What ends a process, and its exit codes: told of by `rho`, or before it can.
ENDS: Final = {
    signal.SIGKILL: {-signal.SIGKILL},
    signal.SIGTERM: {128 + signal.SIGTERM, -signal.SIGTERM},
    signal.SIGINT: {128 + signal.SIGINT, -signal.SIGINT},
}


def end(process: Any, number: signal.Signals) -> bool:
    """End a process by this signal; returns whether it was still at work."""
    if process.is_alive():
        with suppress(ProcessLookupError):  # it is done since
            os.kill(process.pid, number)
    process.join(120)
    # Ctrl-C while a process of multiprocessing begins, before `rho` is called, is its exit code 1.
    allowed = {0} | ENDS[number] | ({1} if number is signal.SIGINT else set())
    assert process.exitcode in allowed, f"{number.name} ended it with {process.exitcode}"
    return process.exitcode != 0


def finish(arguments: list[str]) -> float:
    """Run to the end; returns the seconds that it took."""
    begin = time.monotonic()
    process = start(arguments)
    process.join(120)
    assert process.exitcode == 0
    return time.monotonic() - begin
