"""Jobs of several `rho` processes that a test can kill at any moment, as torchrun starts them."""

import os
import random
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

from helpers import forked, killable


def process_of_job(rank: int, ranks: int, port: int, arguments: list[str]) -> None:
    """What each process does: the command, with the variables that torchrun sets."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    killable.rho(arguments)


def start(arguments: list[str], ranks: int) -> list[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [forked.begin(process_of_job, (rank, ranks, port, arguments)) for rank in range(ranks)]


def kill_one(processes: Sequence[Any], chance: random.Random, done: Callable[[], bool]) -> bool:
    """SIGKILL one of them, and end the others as torchrun does: by SIGTERM, then by SIGKILL. Was it at work?

    Args:
        done: is the job's result there? Before it is, none of them may end well.
    """
    victim = chance.choice(processes)
    if victim.is_alive():
        os.kill(victim.pid, signal.SIGKILL)
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
