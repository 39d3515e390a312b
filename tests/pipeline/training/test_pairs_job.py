"""`rho train` and `rho il train` on image-text pairs in several processes: what one makes."""

import json
import os
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.pair_corpus import write_pairs_with_reference
from helpers.ranks import on_jobs
from safetensors.torch import load

from rhostream.errors import ConfigError
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import ILTrainConfig, ThumbnailsConfig, TrainConfig
from rhostream.pipeline.il import train_il
from rhostream.pipeline.sql import query
from rhostream.pipeline.thumbnails import write_thumbnails
from rhostream.pipeline.training.loop import train

pytestmark = pytest.mark.slow

CONFIG = TrainConfig(
    model="small_clip", select="jest", batch_size=12, super_batch_size=48, score_chunk=12, steps=6, evaluate_every=3,
    device="cpu", threads=1, workers="0", schedule="constant", thumbnails="none", tensorboard=False,
    zero_shot="color", prompts=("a {} disc",),
)  # fmt: skip
#: Settings by the run's name.
RUNS: dict[str, dict[str, Any]] = {
    "jest": {},
    "uniform": {"select": "uniform"},
    "drrho": {"select": "drrho", "temperature": 2.0},
    "sigmoid": {"select": "hard_learner", "contrastive_loss": "sigmoid"},
    "proxy": {"select": "learnability", "proxy": True},
    "mixed": {"thumbnails": "8-raw", "mixed_resolution": 0.5},
}


def job(workspace: str, runs: str) -> list[Any]:
    """The metrics of these runs, each a name and settings, or what they were refused with."""
    found: list[Any] = []
    for name, settings in json.loads(runs):
        try:
            found.append(train(Workspace(workspace), replace(CONFIG, name=name, **settings)).metrics)
        except ConfigError as error:
            found.append(str(error))
    return found


def reference(workspace: str) -> list[Any]:
    """Train a reference model, the last two pairs of each epoch of 200 being a batch; what its evaluations found."""
    config = ILTrainConfig(
        name=f"of-{os.environ.get('WORLD_SIZE', '1')}", model="small_clip", batch_size=66, steps=12, device="cpu",
        precision="float32", threads=1,
    )  # fmt: skip
    (model,) = train_il(Workspace(workspace), config).metadata.models
    return [
        [each.step, each.train_loss or 0.0, each.validation_loss, each.validation_accuracy]
        for each in model.evaluations
    ]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = write_pairs_with_reference(tmp_path_factory.mktemp("pairs") / "w")
    write_thumbnails(made, ThumbnailsConfig(size=8, format="raw", workers=0))
    return made


@pytest.fixture(scope="module")
def of_ranks(workspace: Workspace) -> dict[str, Any]:
    """By the run's name what its first process found."""
    runs: dict[int, dict[str, Any]] = {
        2: {f"{name}-2": settings for name, settings in RUNS.items()} | {"sharded": {"shard_model": True}},
        3: {"jest-3": {}},
    }
    jobs = [(ranks, "job", [workspace.location, json.dumps([*of.items()])]) for ranks, of in runs.items()]
    jobs += [(ranks, "reference", [workspace.location]) for ranks in (2, 3)]
    *found, of_two, of_three = on_jobs("pipeline.training.test_pairs_job", jobs)
    told = {"reference-2": of_two[0], "reference-3": of_three[0]}
    for of, job in zip(runs.values(), found, strict=True):
        told |= dict(zip(of, job[0], strict=True))
    return told


@pytest.mark.parametrize("name", RUNS)
def test_any_number_of_processes_makes_the_same_run_of_pairs(workspace, of_ranks, name):
    alone = train(workspace, replace(CONFIG, name=name, **RUNS[name])).metrics
    for run in (each for each in (f"{name}-2", f"{name}-3") if each in of_ranks):
        assert ledger(workspace, run) == ledger(workspace, name)
        weights, others = (load(workspace.read_bytes(f"runs/{each}/model.safetensors")) for each in (name, run))
        for parameter, value in weights.items():
            torch.testing.assert_close(others[parameter], value, rtol=1e-3, atol=1e-4)
        for line, expected in zip(of_ranks[run], alone, strict=True):
            for measured in (
                *("candidates", "selected", "train_loss", "test_loss", "test_accuracy", "image_to_text_r1"),
                *("test_zero_shot", "selected_correct", "selected_mislabeled", "flops_train"),
            ):
                assert line[measured] == pytest.approx(expected[measured], rel=1e-3), measured


@pytest.mark.parametrize("ranks", [2, 3])
def test_processes_train_one_reference_model(workspace, of_ranks, ranks):
    alone = reference(workspace.location)
    assert len(alone) > 1
    for found, expected in zip(of_ranks[f"reference-{ranks}"], alone, strict=True):
        assert found == pytest.approx(expected, rel=1e-3)
    weights, others = (load(workspace.read_bytes(f"il/of-{each}/model.safetensors")) for each in (1, ranks))
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, rtol=1e-3, atol=1e-4)


def test_a_model_that_is_shared_out_is_refused_for_pairs(of_ranks):
    assert "shard_model with image-text pairs, whose temperature is a single number" in of_ranks["sharded"]


def ledger(workspace: Workspace, run: str) -> list[Any]:
    sql = f"SELECT step, key, selected, round(weight, 2) AS w FROM ledger WHERE run = '{run}' ORDER BY step, key"
    return query(workspace, sql).to_pylist()
