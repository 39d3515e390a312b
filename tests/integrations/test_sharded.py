"""FSDP2, by hand, by Lightning and by Accelerate, tensor parallelism, Fabric and Ray Train on gloo: the examples."""

import contextlib
import copy
import io
import os
import runpy
import sys
from typing import Any

import pytest
import torch
import torch.distributed as dist
from helpers.dropin import EXAMPLES, chosen, example_workspace, network
from helpers.ranks import on_jobs
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel, fully_shard

from rhostream.errors import ConfigError
from rhostream.loaders import Workspace
from rhostream.selection import Scorer
from rhostream.selection.scoring import BackgroundScoring


def example(name: str, *arguments: str) -> list[str]:
    """What an example prints on this rank."""
    if name == "fabric_loop":
        os.environ |= {"LT_ACCELERATOR": "cpu", "LT_STRATEGY": "ddp", "LT_DEVICES": os.environ["WORLD_SIZE"]}
    if name == "accelerate_loop":
        _shard_by_accelerate()
    sys.argv = [name, *arguments]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return [line for line in said.getvalue().splitlines() if "loss" in line]


def _shard_by_accelerate() -> None:
    """What `accelerate launch --use_fsdp --fsdp_version 2` asks for; Accelerate itself does so on no CPU."""
    import accelerate
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    class OnCPUs(accelerate.Accelerator):
        def __init__(self) -> None:
            super().__init__(cpu=True)
            PartialState._shared_state["distributed_type"] = self.state.distributed_type = DistributedType.FSDP
            self.state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2, cpu_ram_efficient_loading=False)

        def end_training(self) -> None:
            assert any(isinstance(model, FSDPModule) for model in self._models)
            super().end_training()

    accelerate.Accelerator = OnCPUs


def scored_between_steps() -> dict[str, Any]:
    """Scores of sharded models that keep their gathered parameters, before and after a step, beside those of a copy."""
    dist.init_process_group("gloo")
    alone = network()
    model = copy.deepcopy(alone)
    fully_shard(model, reshard_after_forward=False)
    first_version = FullyShardedDataParallel(copy.deepcopy(alone), use_orig_params=True, device_id=torch.device("cpu"))
    images, labels = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3
    found = []
    for each in (alone, model, first_version):
        each.eval()  # without the dropout
        optimizer = torch.optim.SGD(each.parameters(), lr=0.5)
        scorer, scores = Scorer(each), []
        for _ in range(2):
            torch.nn.functional.cross_entropy(each(images), labels).backward()
            scores.append(scorer.logits(images))  # before the optimizer's step: it must not see these weights again
            optimizer.step()
            optimizer.zero_grad()
            scores.append(scorer.logits(images))
        found.append(torch.stack(scores))
    try:
        BackgroundScoring(Scorer(model))
        refused = ""
    except ConfigError as error:
        refused = str(error)
    dist.destroy_process_group()
    return {"apart": [float((found[0] - each).abs().max()) for each in found[1:]], "refused": refused}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Workspace]:
    """Two workspaces of the same samples: for a run at one go, and for one that goes on from a checkpoint."""
    first, second = (example_workspace(tmp_path_factory.mktemp(name) / "w") for name in ("whole", "resumed"))
    return first, second


@pytest.fixture(scope="module")
def jobs(places: tuple[Workspace, Workspace], tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """What each job returns, rank by rank."""
    whole, resumed = (place.location for place in places)
    checkpoint = ("--steps", "2", "--checkpoint", str(tmp_path_factory.mktemp("checkpoint") / "c"))
    return on_jobs(
        "integrations.test_sharded",
        [
            (2, "example", ("fsdp2", whole, "--steps", "4")),
            (2, "example", ("fsdp2", resumed, *checkpoint)),
            (4, "example", ("fsdp2", resumed, *checkpoint, "--tensor-parallel", "2")),
            (2, "example", ("fabric_loop", whole, "--steps", "2")),
            (2, "scored_between_steps", ()),
            (2, "example", ("lightning_fsdp2", whole, "--steps", "2")),
            (2, "example", ("accelerate_loop", whole, *checkpoint[:3], f"{checkpoint[3]}-of-accelerate")),
            (2, "example", ("ray_train", whole, "--workers", "0", "--steps", "2", "--save-every", "1")),
        ],
        imports=("accelerate", "lightning.pytorch", "ray.train.torch"),
    )


def test_the_examples_take_their_steps_on_every_rank(jobs):
    whole, begun, resumed, fabric = jobs[:4]
    assert [len(lines) for lines in (*whole, *begun, *resumed)] == [4] * 2 + [2] * 6
    assert all("16 samples" in line for lines in (*whole, *resumed) for line in lines)
    peers = [[line.replace(f"rank {rank}", "") for line in lines] for rank, lines in enumerate(resumed)]
    assert peers[0] == peers[1] != peers[2] == peers[3]
    assert len(fabric[0]) == 2


@pytest.mark.parametrize("run", ["lightning_fsdp2", "accelerate_loop", "ray_train"])
def test_other_peoples_trainers_train_on_one_choice_of_all_ranks(places, jobs, run):
    assert [len(keys) for keys in chosen(places[0], run)] == [32, 32]


def test_a_checkpoint_goes_on_under_tensor_parallelism(places, jobs):
    whole, resumed = (chosen(place, "fsdp2") for place in places)
    assert len(whole) == len(resumed) == 4
    assert resumed == whole


def test_scoring_a_sharded_model_sees_the_weights_of_now(jobs):
    for rank in jobs[4]:
        assert max(rank["apart"]) < 1e-4
        assert "score_ahead: FSDP" in rank["refused"]
