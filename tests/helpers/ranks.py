"""Runs a function of a test module on several ranks: what is slow to import is imported once, then forked."""

import faulthandler
import importlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: What training imports on its way, which takes each process some seconds of its own.
_ON_THE_WAY = ("pandas", "pyarrow.parquet", "torch._dynamo", "torch.distributed.fsdp", "rhostream.cli.main")
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
        command = [sys.executable, __file__, str(where), module, folder, json.dumps(jobs), json.dumps(imports)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return [
            [json.loads(Path(folder, f"{job}-{rank}.json").read_text()) for rank in range(ranks)]
            for job, (ranks, _, _) in enumerate(jobs)
        ]


def _rank(function: Any, rank: int, ranks: int, port: int, told: str, arguments: list[str]) -> None:
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
    faulthandler.dump_traceback_later(_SECONDS_OF_A_JOB, exit=True)  # where it hangs is told
    Path(f"{told}-{rank}.json").write_text(json.dumps(function(*arguments)))
    faulthandler.cancel_dump_traceback_later()


def _main(where: str, module: str, folder: str, jobs: str, imports: str) -> None:
    sys.path[0] = where  # in place of this folder, where other modules have the same names
    target = importlib.import_module(module)
    for name in (*_ON_THE_WAY, *json.loads(imports)):
        importlib.import_module(name)
    for job, (ranks, function, arguments) in enumerate(json.loads(jobs)):
        _run(getattr(target, function), ranks, f"{folder}/{job}", arguments)


def _run(function: Any, ranks: int, told: str, arguments: list[str]) -> None:
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


if __name__ == "__main__":
    _main(*sys.argv[1:])
