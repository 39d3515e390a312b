"""Runs a function of a test module on several ranks: what is slow to import is imported once, then forked."""

import importlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def on_ranks(module: str, function: str, *arguments: str, ranks: int = 2) -> list[Any]:
    """What `function(*arguments)` returned on each rank, through JSON; `module` is relative to tests/."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, module, function, str(ranks), folder, *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(ranks)]


def _rank(function: Any, rank: int, ranks: int, port: int, folder: str, arguments: list[str]) -> None:
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
    Path(folder, f"{rank}.json").write_text(json.dumps(function(*arguments)))


def _main(module: str, function: str, ranks: str, folder: str, *arguments: str) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    target = getattr(importlib.import_module(module), function)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    processes = [
        fork.Process(target=_rank, args=(target, rank, int(ranks), port, folder, list(arguments)))
        for rank in range(int(ranks))
    ]
    for process in processes:
        process.start()
    failed = False
    for process in processes:
        if failed:
            process.terminate()
        process.join()
        failed = failed or process.exitcode != 0
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    _main(*sys.argv[1:])
