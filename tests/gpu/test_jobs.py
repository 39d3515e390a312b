"""Jobs on a GPU: a rank over NCCL, and scorers on CPUs beside a learner on the GPU."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers.gpu import DEVICE, full_float32, needs_gpu, require_alike, require_finite
from helpers.tiny import write_il, write_workspace
from torch import nn
from torch.nn.functional import cross_entropy

from rhostream.loaders import CandidateStream
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.models import in_parallel
from rhostream.pipeline.training.loop import train
from rhostream.selection import OnlineSelector

pytestmark = needs_gpu

CONFIG = TrainConfig(
    select="rho_loss",
    model="bn_cnn",
    batch_size=4,
    super_batch_size=16,
    steps=24,
    evaluate_every=6,
    precision="float32",
    threads=2,
    tensorboard=False,
    staleness=2,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = write_workspace(tmp_path_factory.mktemp("w") / "w", (80, 80, 40), test_rows=30, side=16)
    write_il(workspace)
    return workspace


@pytest.fixture
def group(tmp_path: Path) -> Iterator[dist.ProcessGroup | None]:
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 64), nn.ReLU(), nn.Linear(64, 3)).to(DEVICE)


def selected(workspace: Workspace, model: nn.Module) -> list[set[str]]:
    """The keys of the batches of two epochs, each of which the model is trained on."""
    optimizer, found = torch.optim.SGD(model.parameters(), lr=0.1), []
    stream = CandidateStream(workspace, il="strided_cnn", super_batch_size=40)
    selector = OnlineSelector(model, batch_size=10)
    for _ in range(2):
        for batch in selector(stream):
            cross_entropy(model(batch.images), batch.labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(set(batch.keys))
    return found


@pytest.mark.parametrize("shard", [False, True], ids=["ddp", "fsdp2"])
def test_a_rank_over_nccl_selects_as_without_a_group(made: Workspace, group: dist.ProcessGroup, shard: bool) -> None:
    with full_float32():
        alone = selected(made, network())
        device = next(network().parameters()).device
        shared = selected(made, in_parallel(network(), device, group=group, shard=shard, sync_batchnorm=False))
    assert dist.get_backend(group) == "nccl"
    assert len(shared) == len(alone) == 10
    assert sum(len(one & other) for one, other in zip(alone, shared, strict=True)) >= 0.95 * 100


def test_scorers_on_cpus_serve_a_learner_on_the_gpu(made: Workspace, tmp_path: Path) -> None:
    settings = "--select rho_loss --model bn_cnn --batch-size 4 --super-batch-size 16 --steps 24 --evaluate-every 6"
    settings += " --precision float32 --threads 2 --no-tensorboard --staleness 2 --scorers 1 --name by-scorers"
    command = [sys.executable, "-c", "from rhostream.cli.main import main; main()", "train", *settings.split()]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes, logs = [], [tmp_path / f"{rank}.log" for rank in range(2)]
    for rank, (log, own) in enumerate(zip(logs, ({}, {"CUDA_VISIBLE_DEVICES": ""}), strict=True)):
        environment = os.environ | job | {"RANK": str(rank), "LOCAL_RANK": str(rank)} | own
        with log.open("wb") as told:
            arguments = [*command, "--workspace", made.location]
            processes.append(subprocess.Popen(arguments, env=environment, stdout=told, stderr=told))
    assert [process.wait(180) for process in processes] == [0, 0], "\n".join(log.read_text() for log in logs)
    with full_float32():
        run = train(made, CONFIG)
    require_finite(run.metrics)
    require_alike(made, run.name, "by-scorers")
