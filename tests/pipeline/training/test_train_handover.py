"""`rho train --select learnable`: it selects, hands over to uniform sampling, and resumes on either side of that."""

from dataclasses import replace

import duckdb
import pytest
from helpers.corpus_fixture import write_shapes

from rhostream.errors import ConfigError
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.il import score_il, train_il
from rhostream.pipeline.training.loop import train

CONFIG = TrainConfig(
    model="mlp",
    select="learnable",
    schedule="constant",
    batch_size=4,
    super_batch_size=20,
    steps=80,
    evaluate_every=20,
    device="cpu",
    threads=1,
    workers="0",
    tensorboard=False,
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Of an IL model that has learnt nothing, so that the learner soon knows as much."""
    workspace = write_shapes(tmp_path_factory.mktemp("w"), splits={"train": 200, "holdout": 60, "test": 20})
    train_il(workspace, ILTrainConfig(model="strided_cnn", steps=1, cross_fit=0, device="cpu"))
    score_il(workspace, ILScoreConfig(device="cpu"))
    return workspace


def selections(workspace: Workspace, run: str) -> dict[str, tuple[int, int]]:
    """First and last step of what was chosen by, in the ledger."""
    ledger = workspace.path(f"runs/{run}/ledger/*.parquet")
    rows = duckdb.sql(f"SELECT selection, min(step), max(step) FROM '{ledger}' GROUP BY ALL").fetchall()
    return {selection: (first, last) for selection, first, last in rows}


@pytest.mark.slow
def test_scoring_ends_once_the_model_knows_as_much(workspace: Workspace) -> None:
    run = train(workspace, replace(CONFIG, name="handed"))
    assert run.metrics[-1]["decision"] == "handed over"
    found = selections(workspace, "handed")
    (scored,), (uniform,) = (
        [steps for name, steps in found.items() if name.startswith(first)] for first in ("learnable", "uniform")
    )
    assert scored[0] == 1
    assert 40 <= scored[1] < 80
    assert uniform == (scored[1] + 1, 76)  # of the last super-batch, which gives the steps up to 80


@pytest.mark.slow
def test_a_run_extended_across_the_handover_equals_the_longer_one(workspace: Workspace) -> None:
    whole = train(workspace, replace(CONFIG, name="whole"))
    for steps in (20, 60, 80):
        parts = train(workspace, replace(CONFIG, name="parts", steps=steps))
    assert [line["test_loss"] for line in parts.metrics] == [line["test_loss"] for line in whole.metrics]
    assert selections(workspace, "parts") == selections(workspace, "whole")


def test_a_handover_without_irreducible_losses_is_refused(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="handover with 'train_loss'"):
        train(workspace, replace(CONFIG, name="refused", select="train_loss", handover=True))
    assert "refused" not in workspace.names("runs")


def test_a_run_is_warned_of_too_weak_a_table(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    short = replace(CONFIG, steps=2, evaluate_every=2)
    train(workspace, replace(short, name="warned", select="rho_loss"))
    (warning,) = [record.getMessage() for record in caplog.records if "uniform sampling is safer" in record.message]
    assert warning.startswith("run 'warned' chooses by IL table 'strided_cnn': the IL model is too weak to select by")
    caplog.clear()
    train(workspace, replace(short, name="plain", select="uniform"))
    assert not caplog.records
