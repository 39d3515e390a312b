"""Real `rho` processes that a test can kill at any moment."""

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

#: How many times each stage is killed.
KILLS = int(os.environ.get("RHO_TEST_KILLS", "20"))

#: The server of forked processes has torch loaded, so that a restart takes milliseconds and not seconds.
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    ["rhostream.pipeline.il.train", "rhostream.pipeline.il.score", "rhostream.pipeline.training.loop", "torch._dynamo"]
)


def rho(arguments: list[str]) -> None:
    """What the process does: the command, as a shell would start it."""
    import torch

    from rhostream.cli.main import main

    torch.set_num_threads(1)
    sys.argv = ["rho", *arguments]
    with Path(os.devnull).open("w") as nowhere:
        for standard in (1, 2):
            os.dup2(nowhere.fileno(), standard)
        sys.stdout = sys.stderr = nowhere
        main()


def begin(target: Callable[..., None], arguments: tuple[Any, ...]) -> Any:
    """A process of the server that runs this function."""
    process = _server.Process(target=target, args=arguments)
    process.start()
    return process


def start(arguments: list[str]) -> Any:
    return begin(rho, (arguments,))


#: What ends a process, and its exit codes: told of by `rho`, or before it can.
ENDS: Final = {
    signal.SIGKILL: {-signal.SIGKILL},
    signal.SIGTERM: {128 + signal.SIGTERM, -signal.SIGTERM},
    signal.SIGINT: {128 + signal.SIGINT, -signal.SIGINT},
}


def end(process: Any, chance: random.Random) -> bool:
    """End a process by one of three signals; returns whether it was still at work."""
    number = chance.choice(list(ENDS))
    if process.is_alive():
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
