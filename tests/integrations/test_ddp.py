"""DistributedDataParallel on two gloo ranks: one choice for both; scoring leaves no trace and waits for no rank."""

import os
import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers import forked
from helpers.dropin import (
    EXAMPLES,
    Recording,
    example_workspace,
    loader_of,
    network,
    sequence,
    stream_of,
    tiny_workspace,
)
from helpers.ranks import on_ranks
from helpers.tiny import write_il
from torch import nn
from torch.distributed import run
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from rhostream.loaders import Prefilter, Workspace
from rhostream.selection import Scorer, images_and_labels
from rhostream.selection.scoring.scorer import without_ddp


def train(workspace: str) -> dict[str, object]:
    """Two epochs; what this rank saw, whether scoring left a trace, and the end's weights."""
    dist.init_process_group("gloo")
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = Recording(images_and_labels)
    loader = loader_of(stream_of(workspace), model, seen)
    traces = 0
    for epoch in range(2):
        loader.set_epoch(epoch)
        for images, labels in loader:
            cross_entropy(model(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
    with torch.no_grad():
        model.module[1].running_mean += dist.get_rank()  # as after a step: each rank has its own until the next forward
    before = {name: value.clone() for name, value in model.state_dict().items()}
    if dist.get_rank() == 0:  # a forward of DDP would wait for rank 1
        loader.selector.scorer.logits(torch.randn(20, 3, 8, 8))
    traces += sum(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    traces += sum(parameter.grad is not None for parameter in model.parameters())
    traces += not all(module.training for module in model.modules())
    weights = [value.double().sum().item() for name, value in model.state_dict().items() if "running" not in name]
    state, little = loader.state_dict(), train_on_little(workspace)
    dist.destroy_process_group()
    return {
        "candidates": seen.candidates,
        "selected": seen.selected,
        "batches": len(loader),
        "traces": traces,
        "weights": weights,
        "state": state,
        "little": little,
    }


def train_on_little(workspace: str) -> dict[str, int]:
    """An epoch in which most candidates are ruled out: both ranks have to take as many steps as its length says."""
    model = DistributedDataParallel(network())
    stream = stream_of(workspace, il="contrary", prefilter=Prefilter(chance=1.5), super_batch_size=4)
    loader = loader_of(stream, model, images_and_labels)
    steps = 0
    for images, labels in loader:
        cross_entropy(model(images), labels).backward()
        steps += 1
    return {"steps": steps, "length": len(loader), "repeated": loader.repeated}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workspace = tiny_workspace(tmp_path_factory.mktemp("ddp") / "w")
    write_il(workspace, "contrary", predicted=7)  # never right, so that the prefilter rules half of all out
    return workspace, on_ranks("integrations.test_ddp", "train", workspace.location)


def torchrun(arguments: list[str], told: Path) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with told.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    run.main(arguments)


def test_torchrun_runs_the_example_on_two_ranks(tmp_path):
    example_workspace(tmp_path / "w")
    command = ["--standalone", "--nproc-per-node", "2", str(EXAMPLES / "ddp.py"), str(tmp_path / "w"), "--steps", "3"]
    agent = forked.begin(torchrun, (command, tmp_path / "told"))
    agent.join(300)
    told = (tmp_path / "told").read_text()
    assert agent.exitcode == 0, told[-4000:]
    said = sorted(re.findall(r"rank (\d), step (\d) of epoch (\d)", told))
    assert said == [(rank, step, epoch) for rank in "01" for step, epoch in (("1", "0"), ("2", "0"), ("3", "0"))]


def test_ranks_train_on_shares_of_one_choice(trained):
    workspace, ranks = trained
    assert [rank["batches"] for rank in ranks] == [9, 9]
    assert [rank["candidates"] for rank in ranks] == [sequence(workspace, 2)] * 2
    for candidates, first, second in zip(ranks[0]["candidates"], *(rank["selected"] for rank in ranks), strict=True):
        assert (len(first), len(second)) == (2, 2)
        assert len({*first, *second} & set(candidates)) == 4


def test_scoring_waits_for_no_rank_and_changes_no_state(trained):
    assert [rank["traces"] for rank in trained[1]] == [0, 0]


def test_ranks_train_one_model_and_save_one_state(trained):
    first, second = trained[1]
    assert first["weights"] == second["weights"]
    assert first["state"] == second["state"]


def test_a_state_of_two_ranks_is_continued_by_one(trained):
    workspace, ranks = trained
    seen = Recording(images_and_labels)
    loader = loader_of(stream_of(Workspace(workspace.location)), network(), seen)
    loader.load_state_dict(ranks[0]["state"])
    list(loader)
    assert seen.candidates == sequence(workspace, 3)[18:]


def test_super_batches_of_too_few_candidates_cost_no_step(trained):
    little = [rank["little"] for rank in trained[1]]
    assert [(rank["steps"], rank["length"]) for rank in little] == [(36, 36)] * 2
    assert little[0]["repeated"] == little[1]["repeated"] > 0


def test_scoring_uses_the_module_inside_ddp_compiled_or_not():
    # Not initialized: only the types matter here, and a real one needs a process group.
    wrapped = DistributedDataParallel.__new__(DistributedDataParallel)
    nn.Module.__init__(wrapped)
    wrapped.module = inner = network()
    assert without_ddp(wrapped) is inner
    assert without_ddp(torch.compile(wrapped)) is inner
    compiled = torch.compile(inner)
    assert without_ddp(compiled) is compiled
    wrapped.module = compiled
    assert without_ddp(wrapped) is compiled


def test_sync_batchnorm_scores_with_this_ranks_statistics():
    # Its own forward refuses the CPU, and on a GPU waits for the other ranks.
    images = torch.randn(20, 3, 8, 8)
    model, synced = network(), nn.SyncBatchNorm.convert_sync_batchnorm(network())
    assert isinstance(synced[1], nn.SyncBatchNorm)
    assert torch.equal(Scorer(synced).logits(images), Scorer(model).logits(images))
    assert "forward" not in vars(synced[1])
