"""Real `rho` processes that a test can kill at any moment."""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

#: How many times each command is ended; benchmarks/kills.py does it more often.
KILLS = int(os.environ.get("RHO_TEST_KILLS", "3"))

#: What commands import on their way, some seconds of it for each start. A sweep that wants signals to come then, too,
#: sets the variable.
_ON_THE_WAY: Final = (
    "jinja2",
    "matplotlib.backends.backend_agg",
    "pandas",
    "pyarrow.csv",
    "pyarrow.dataset",
    "rhostream.pipeline.comparison.plots",
    "rhostream.pipeline.in_place.tars",
    "rhostream.pipeline.report.page",
    "rhostream.pipeline.shards.write",
    "torch.utils.tensorboard",
)
#: The server of forked processes has torch loaded, so that a restart takes milliseconds and not seconds.
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        "rhostream.cli.main",
        "rhostream.pipeline.il.train",
        "rhostream.pipeline.il.score",
        "rhostream.pipeline.sql.database",
        "rhostream.pipeline.training.loop",
        "torch._dynamo",
        *(() if "RHO_TEST_IMPORTS" in os.environ else _ON_THE_WAY),
    ]
)


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


def begin(target: Callable[..., None], arguments: tuple[Any, ...]) -> Any:
    """A process of the server that runs this function."""
    process = _server.Process(target=target, args=arguments)
    process.start()
    return process


def start(arguments: list[str], *, said: Path = Path(os.devnull), temporary: Path | None = None) -> Any:
    """A process that runs `rho`.

    Args:
        said: file for what it prints to stderr.
        temporary: folder for its temporary files.
    """
    return begin(rho, (arguments, said, temporary))


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
