"""`rho train` in several processes, one of which is killed, goes on under other numbers of them as if never killed."""

import os
import random
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
import torch
from helpers import forked, jobs, killable
from helpers.tiny import write_il, write_workspace
from safetensors.torch import load
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from rhostream.loaders.storage import Workspace

#: How many jobs are killed; `benchmarks/ranks.py` has them killed more often.
KILLS = int(os.environ.get("RHO_TEST_JOB_KILLS", "2"))
COMMAND = (
    "train --select rho_loss --model mlp --batch-size 12 --super-batch-size 48 --score-chunk 12 --steps 40 "
    "--evaluate-every 4 --device cpu --threads 1 --workers 0 --schedule constant --no-tensorboard"
)


def ledger_of(workspace: Workspace) -> pa.Table:
    folder = "runs/rho_loss/ledger"
    return pa.concat_tables([workspace.read_table(f"{folder}/{name}") for name in workspace.names(folder)])


def places(folder: Path) -> tuple[Workspace, Workspace]:
    """Two workspaces of the same samples."""
    whole, killed = (write_workspace(folder / name, (80, 80, 40), test_rows=30) for name in ("whole", "killed"))
    for place in (whole, killed):
        write_il(place)
    return whole, killed


@pytest.mark.slow
def test_killed_jobs_go_on_under_other_numbers_of_processes(tmp_path: Path) -> None:
    whole, killed = places(tmp_path)
    killable.finish([*COMMAND.split(), "--workspace", whole.location])
    command, chance, times = [*COMMAND.split(), "--workspace", killed.location], random.Random(3), 0
    while times < KILLS:
        shared_out = ["--shard-model"] if times % 2 else []
        processes = jobs.start([*command, *shared_out], ranks=chance.choice((2, 3, 4)))
        processes[0].join(chance.uniform(0.5, 4))
        times += jobs.kill_one(processes, chance, lambda: killed.exists("runs/rho_loss/model.safetensors"))
        if killed.exists("runs/rho_loss/model.safetensors"):  # it got to the end: from the beginning again
            killed.remove("runs/rho_loss")
    (last,) = jobs.start(command, ranks=1)
    last.join(120)
    assert last.exitcode == 0
    require_same_run(whole, killed)


@pytest.mark.slow
def test_a_job_goes_on_without_its_killed_scorer(tmp_path: Path) -> None:
    whole, killed = places(tmp_path)
    stale = [*COMMAND.split(), "--staleness", "2", "--workspace"]
    killable.finish([*stale, whole.location])
    ended = 0
    while not ended:
        learner, scorer = jobs.start([*stale, killed.location, "--scorers", "1"], ranks=2)
        while learner.is_alive() and not killed.exists("runs/rho_loss/checkpoints/last.pt"):
            time.sleep(0.01)
        scorer.kill()
        learner.join(120)
        ended = learner.exitcode  # by itself; 0 where it was done
        if killed.exists("runs/rho_loss/model.safetensors"):
            killed.remove("runs/rho_loss")
    assert ended == 1
    (last,) = jobs.start([*stale, killed.location], ranks=1)
    last.join(120)
    assert last.exitcode == 0
    require_same_run(whole, killed)


def under_an_agent(arguments: list[str]) -> None:
    """Two ranks of a command under torchrun's own agent, which forks them here, where torch is imported already."""
    settings = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        run_id="killed", max_restarts=1, monitor_interval=0.1, start_method="fork",
    )  # fmt: skip
    elastic_launch(settings, rank_of_agent)(arguments)


def rank_of_agent(arguments: list[str]) -> None:
    try:
        killable.rho(arguments)
    except SystemExit as end:
        if end.code:
            raise


@pytest.mark.slow
def test_torchrun_starts_a_job_again_from_its_checkpoint(tmp_path: Path) -> None:
    whole, killed = places(tmp_path)
    killable.finish([*COMMAND.split(), "--workspace", whole.location])
    agent = forked.begin(under_an_agent, ([*COMMAND.split(), "--workspace", killed.location],))
    while not killed.exists("runs/rho_loss/checkpoints/last.pt"):
        assert agent.is_alive()
        time.sleep(0.02)
    max(psutil.Process(agent.pid).children(), key=lambda process: process.pid).kill()
    agent.join(300)
    assert agent.exitcode == 0
    require_same_run(whole, killed)


def require_same_run(whole: Workspace, killed: Workspace) -> None:
    """The same keys were chosen at every step, and the weights are the same but for rounding."""
    one, other = ledger_of(whole), ledger_of(killed)
    for column in ("step", "epoch", "key", "selected", "trained", "reason"):
        assert other[column].to_pylist() == one[column].to_pylist(), column
    weights, others = (load(place.read_bytes("runs/rho_loss/model.safetensors")) for place in (whole, killed))
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, rtol=1e-3, atol=1e-4)
