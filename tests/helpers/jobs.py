"""Jobs of several `rho` processes that a test can kill at any moment, as torchrun starts them."""

import os
import random
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from helpers import forked, killable


def process_of_job(rank: int, ranks: int, port: int, arguments: list[str], temporary: Path | None) -> None:
    """What each process does: the command, with the variables that torchrun sets."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    killable.rho(arguments, temporary=temporary)


def start(arguments: list[str], ranks: int, temporary: Path | None = None) -> list[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [forked.begin(process_of_job, (rank, ranks, port, arguments, temporary)) for rank in range(ranks)]


def kill_one(
    processes: Sequence[Any],
    chance: random.Random,
    done: Callable[[], bool],
    by: signal.Signals = signal.SIGKILL,
) -> bool:
    """End one of them, and the others as torchrun does: by SIGTERM, then by SIGKILL. Was it at work?

    Args:
        done: is the job's result there? Before it is, none of them may end well.
        by: the signal that the one gets.
    """
    victim = chance.choice(processes)
    if victim.is_alive():
        os.kill(victim.pid, by)
    victim.join(10)  # before the job has met, only a SIGKILL is noticed
    if victim.is_alive():
        victim.kill()
        victim.join()
    if victim.exitcode == 0:
        for process in processes:
            process.join(120)
        assert {process.exitcode for process in processes} == {0}
        return False
    for number, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 60)):  # before the job has met, nobody notices
        for process in processes:
            if process.is_alive():
                os.kill(process.pid, number)
        for process in processes:
            process.join(seconds)
    if 0 in {process.exitcode for process in processes}:  # the killed one was on its way out
        assert done()
        return False
    return True
