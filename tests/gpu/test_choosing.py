"""Every way of choosing, through `rho train` on a GPU: it runs, and goes on from a checkpoint."""

from dataclasses import replace
from typing import Any

import pytest
from helpers.corpus_fixture import write_shapes
from helpers.gpu import DEVICE, needs_compiler, needs_gpu, require_alike, require_finite
from helpers.runs import THAT_REMEMBER, dying_after, ledger, named

from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.core_set_config import CoreSetConfig
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.il.core_set import write_core_set
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.training.loop import train

pytestmark = needs_gpu

CONFIG = TrainConfig(
    select="rho_loss",
    model="bn_cnn",
    batch_size=4,
    super_batch_size=16,
    steps=24,
    evaluate_every=6,
    device=DEVICE,
    threads=2,
    tensorboard=False,
)
DROPOUT = {"model": "squeezenet1_1", "learning_rate": 1e-4}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = write_shapes(tmp_path_factory.mktemp("w"), splits={"train": 120, "holdout": 60, "test": 40}, noise=0.2)
    train_il(workspace, ILTrainConfig(steps=4, device="cpu"))
    score_il(workspace, ILScoreConfig(device="cpu"))
    write_core_set(workspace, CoreSetConfig(keep=0.5))
    return workspace


@pytest.mark.parametrize(
    "settings",
    [{}, *THAT_REMEMBER, {"select": "grad_norm", "rule": "importance"}, {"select": "bald", **DROPOUT}],
    ids=named,
)
def test_a_killed_run_goes_on_with_what_it_knew(made: Workspace, settings: dict[str, Any]) -> None:
    config, name = replace(CONFIG, **settings), named(settings) or "plain"
    whole = train(made, replace(config, name=f"whole-{name}"))
    with dying_after(15):
        train(made, replace(config, name=f"killed-{name}"))
    resumed = train(made, replace(config, name=f"killed-{name}"))
    for run in (whole, resumed):
        require_finite(run.metrics)
        assert [line["step"] for line in run.metrics] == [6, 12, 18, 24]
    require_alike(made, whole.name, resumed.name)


@pytest.mark.parametrize(
    "settings",
    [
        {"core_set": "svp"},
        {"select": "uniform"},
        {"select": "train_loss", "batchnorm": "eval"},
        {"select": "irreducible_loss"},
        {"select": "loss_minus_conditional_entropy", **DROPOUT},
        {"score_precision": "float16"},
        {"score_precision": "float32", "precision": "bfloat16"},
        {"score_size": 16},
        {"on_missing": "drop", "prefilter": 1.0, "augmentation": "resized_crop"},
        pytest.param({"score_compile": True}, marks=needs_compiler),
    ],
    ids=named,
)
def test_a_run_ends_with_finite_losses_and_a_whole_ledger(made: Workspace, settings: dict[str, Any]) -> None:
    run = train(made, replace(CONFIG, **settings, name=named(settings), steps=12))
    require_finite(run.metrics)
    assert [line["step"] for line in run.metrics] == [6, 12]
    rows = ledger(made, run.name)
    assert len({row["step"] for row in rows}) == 12
    assert sum(row["selected"] for row in rows) == sum(line["selected"] for line in run.metrics) > 40
    assert sum(line["candidates"] for line in run.metrics) == len(rows)


def test_auto_decides_by_the_seconds_that_the_gpu_took(made: Workspace) -> None:
    train(made, replace(CONFIG, name="warm-up"))  # else the first validation takes seconds, and with it the first slice
    run = train(made, replace(CONFIG, select="auto", steps=300, evaluate_every=100))
    require_finite(run.metrics)
    last = run.metrics[-1]
    assert (last["step"], last["seconds_auto"] > 0) == (300, True)
    assert "e:" in last["decision"]
    assert len({row["selection"] for row in ledger(made, "auto")}) > 1


@pytest.mark.parametrize(("first", "then"), [(DEVICE, "cpu"), ("cpu", DEVICE)])
@pytest.mark.parametrize(
    "settings", [{"score_floor": 0.0, "score_age": 12}, {"proxy": True}, {"live_il": True}], ids=named
)
def test_a_run_begun_on_one_device_goes_on_on_another(
    made: Workspace, first: str, then: str, settings: dict[str, Any]
) -> None:
    config = replace(CONFIG, **settings, name=f"{first}-{then}-{named(settings)}", precision="float32")
    with dying_after(15):
        train(made, replace(config, device=first))
    before = [row for row in ledger(made, config.name) if row["step"] <= 12]
    run = train(made, replace(config, device=then))
    require_finite(run.metrics)
    assert [line["step"] for line in run.metrics] == [6, 12, 18, 24]
    rows = ledger(made, run.name)
    assert rows[: len(before)] == before
    assert max(row["step"] for row in rows) == 24
