"""Runs functions of a test module on several ranks: what is slow to import is imported once, then forked."""

import faulthandler
import importlib
import json
import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from helpers import forked

_SECONDS_OF_A_JOB = int(os.environ.get("RHO_TEST_JOB_SECONDS", "120"))


def on_ranks(module: str, function: str, *arguments: str, ranks: int = 2) -> list[Any]:
    """What `function(*arguments)` returned on each rank, through JSON; `module` is relative to tests/."""
    return on_jobs(module, [(ranks, function, arguments)])[0]


def on_jobs(
    module: str,
    jobs: Sequence[tuple[int, str, Sequence[str]]],
    where: Path = Path(__file__).parents[1],
    imports: Sequence[str] = (),
) -> list[list[Any]]:
    """The same for several jobs, one after the other: each a number of ranks, a function and its arguments.

    Args:
        where: the folder that `module` is in.
        imports: what the functions import, each of which takes a second or more.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        parent = forked.begin(_main, (str(where), module, folder, jobs, imports, environment))
        parent.join(300)
        parent.kill()
        parent.join()
        said = Path(folder, "said").read_text()
        assert parent.exitcode == 0, f"{said[:4000]}\n…\n{said[-4000:]}"  # what failed first, and what came of it
        return [
            [json.loads(Path(folder, f"{job}-{rank}.json").read_text()) for rank in range(ranks)]
            for job, (ranks, _, _) in enumerate(jobs)
        ]


def _rank(function: Any, rank: int, ranks: int, port: int, told: str, arguments: Sequence[str]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
        "GROUP_RANK": "0",
    }
    # Before this process has other threads: two that first ask for torch's pool after a fork may end it.
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(_SECONDS_OF_A_JOB, exit=True)  # where it hangs is told
    Path(f"{told}-{rank}.json").write_text(json.dumps(function(*arguments)))
    faulthandler.cancel_dump_traceback_later()


def _main(where: str, module: str, folder: str, jobs: Any, imports: Sequence[str], environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with Path("said").open("w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    # Not the current folder of the tests, in which rooms have the names of the tests' folders.
    sys.path[:] = [where, *(path for path in sys.path if path and Path(path) != Path(where).parent)]
    target = importlib.import_module(module)
    for name in imports:
        importlib.import_module(name)
    for job, (ranks, function, arguments) in enumerate(jobs):
        _run(getattr(target, function), ranks, f"{folder}/{job}", arguments)


def _run(function: Any, ranks: int, told: str, arguments: Sequence[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    processes = [
        fork.Process(target=_rank, args=(function, rank, ranks, port, told, arguments)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    failed = False
    for process in processes:
        if failed:
            process.terminate()
        process.join()
        failed = failed or process.exitcode != 0
    if failed:
        sys.exit(1)
