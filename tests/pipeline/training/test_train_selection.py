"""`rho train` with every way of choosing: what it trains on, and that a killed run ends like one that was not."""

import json
import math
from dataclasses import replace
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from helpers.corpus_fixture import write_shapes
from helpers.runs import THAT_REMEMBER, dying_after, ledger, named, signaled_at
from helpers.tiny import write_il, write_workspace

from rhostream import ConfigError, RhostreamError
from rhostream.cli.main import rho
from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.training.budget import steps_of
from rhostream.pipeline.training.loop import train

CONFIG = TrainConfig(
    select="rho_loss",
    model="bn_cnn",
    batch_size=4,
    super_batch_size=16,
    steps=24,
    evaluate_every=6,
    device="cpu",
    threads=1,
    tensorboard=False,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workspace:
    workspace = write_shapes(tmp_path_factory.mktemp("w"), splits={"train": 120, "holdout": 60, "test": 40}, noise=0.2)
    train_il(workspace, ILTrainConfig(model="strided_cnn", steps=4, device="cpu"))
    score_il(workspace, ILScoreConfig(device="cpu"))
    return workspace


@pytest.mark.parametrize("settings", THAT_REMEMBER, ids=named)
def test_a_stopped_and_killed_run_ends_like_an_undisturbed_one(made, settings):
    config = replace(CONFIG, **settings)
    name = named(settings)
    whole = train(made, replace(config, name=f"whole-{name}"))
    assert whole.metrics[-1]["step"] == 24
    with signaled_at(9, SIGTERM, saying="stopped by SIGTERM at step 9 of 24"):
        train(made, replace(config, name=f"killed-{name}"))
    with dying_after(7):
        train(made, replace(config, name=f"killed-{name}"))
    resumed = train(made, replace(config, name=f"killed-{name}"))

    def nameless(run: str) -> list[dict[str, Any]]:
        return [row | {"run": ""} for row in ledger(made, run)]

    assert nameless(whole.name) == nameless(resumed.name)
    weights = [made.read_bytes(f"runs/{run.name}/model.safetensors") for run in (whole, resumed)]
    assert weights[0] == weights[1]


def test_filtered_uniform_sampling_trains_on_whole_permitted_batches(made):
    run = train(made, replace(CONFIG, name="filtered", select="uniform", prefilter=1.0))
    chosen = [row for row in ledger(made, "filtered") if row["selected"]]
    assert sum(line["selected"] for line in run.metrics) == 24 * 4
    assert any(row["reason"] == "filtered" for row in ledger(made, "filtered"))
    assert all(row["reason"] == "not_needed" for row in chosen)


def test_reused_losses_stand_in_the_ledger_and_cost_no_pass(made):
    """Epochs of 8 super-batches: with losses of 12 steps re-used, the second epoch scores nothing anew."""
    afresh = train(made, replace(CONFIG, name="afresh", steps=12, evaluate_every=4))
    again = train(made, replace(CONFIG, name="again", steps=12, evaluate_every=4, score_age=12))
    losses: dict[str, list[float]] = {}
    for row in ledger(made, "again"):
        losses.setdefault(row["key"], []).append(row["loss"])
    twice = [found for found in losses.values() if len(found) == 2]
    assert len(twice) > 30
    assert all(first == second for first, second in twice)
    assert again.metrics[-1]["flops_score"] < 0.8 * afresh.metrics[-1]["flops_score"]


def test_the_command_line_takes_every_setting(made: Workspace):
    command = [
        "train",
        "--workspace",
        made.root,
        "--name",
        "cli",
        "--model",
        "bn_cnn",
        "--batch-size",
        "4",
        "--super-batch-size",
        "16",
        "--steps",
        "4",
        "--device",
        "cpu",
        "--share",
        "0.5",
        "--rule",
        "gumbel",
        "--temperature",
        "0.7",
        "--class-floor",
        "0.3",
        "--score-floor",
        "-1",
        "--score-age",
        "2",
        "--score-precision",
        "float32",
        "--score-size",
        "16",
        "--no-proxy",
        "--no-live-il",
        "--evaluate-at-most",
        "10",
        "--json",
    ]
    result = CliRunner().invoke(rho, command)
    assert result.exit_code == 0, result.output
    config = json.loads((Path(made.root) / "runs/cli/run.json").read_text())["config"]
    given = {
        "share": 0.5,
        "rule": "gumbel",
        "temperature": 0.7,
        "class_floor": 0.3,
        "score_floor": -1.0,
        "score_age": 2,
        "score_precision": "float32",
        "score_size": 16,
        "evaluate_at_most": 10,
    }
    assert {name: config[name] for name in given} == given


def test_a_proxy_without_an_il_model_in_place_is_refused(made, tmp_path):
    parts = [
        made.read_table(shard.scores("strided_cnn"), ["key", "il"])
        for shard in CorpusMetadata.read(made).split("train")
    ]
    pq.write_table(pa.concat_tables(parts), tmp_path / "il.parquet")
    with pytest.raises(ConfigError, match=r"proxy needs an IL model of the workspace, not .*il.parquet"):
        train(made, replace(CONFIG, name="r", proxy=True, il=str(tmp_path / "il.parquet")))


def test_a_floor_above_every_score_ends_the_run_audibly(made):
    with pytest.raises(RhostreamError, match=r"after step 0: an epoch had no candidate to train on.*--score-floor"):
        train(made, replace(CONFIG, name="high", score_floor=100.0))


def test_a_batch_that_takes_several_epochs_to_fill_is_filled(tmp_path):
    workspace = write_workspace(tmp_path / "w", (40,), test_rows=10)
    write_il(workspace, predicted=0)
    config = TrainConfig(
        model="mlp",
        select="uniform",
        prefilter=2.5,
        batch_size=32,
        super_batch_size=32,
        steps=2,
        device="cpu",
        threads=1,
        tensorboard=False,
    )
    run = train(workspace, config)
    left = sum((n * 7 + n // 3) % 3 == 0 or n / 100 <= math.log(3 / 2.5) for n in range(40))
    assert left < 32
    assert sum(line["selected"] for line in run.metrics) == 64


@pytest.mark.parametrize(
    "settings",
    [{"select": "auto"}, {"select": "grad_norm_is"}, {"score_floor": 0.0}, {"select": "uniform", "prefilter": 1.0}],
    ids=str,
)
def test_an_epoch_budget_needs_a_known_number_of_candidates(settings):
    with pytest.raises(ConfigError, match=r"a budget in epochs with select .* give it in steps"):
        steps_of(replace(CONFIG, epochs=2.0, **settings), 1000)
