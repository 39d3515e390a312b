"""`rho train` on image-text pairs: alone and jointly selected, measured by recall, resumed to the same bytes."""

import pytest
from helpers.pair_corpus import write_pairs

from rhostream.errors import ConfigError, Stage
from rhostream.loaders.index import CorpusMetadata
from rhostream.pipeline.config import ILScoreConfig, ILTrainConfig, TrainConfig
from rhostream.pipeline.il import score_il, train_il
from rhostream.pipeline.report import workspace_status
from rhostream.pipeline.sql import query
from rhostream.pipeline.training import measure, train


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = write_pairs(tmp_path_factory.mktemp("train"), 160, wrong=0.4, holdout=200, test_rows=40)
    train_il(workspace, ILTrainConfig(model="small_clip", steps=60, batch_size=64, device="cpu"))
    score_il(workspace, ILScoreConfig(device="cpu"))
    return workspace


def config(**settings):
    usual = {
        "model": "small_clip", "batch_size": 16, "super_batch_size": 80, "steps": 8, "device": "cpu",
        "tensorboard": False, "evaluate_every": 4, "schedule": "constant",
    }  # fmt: skip
    return TrainConfig(**usual | settings)


@pytest.mark.parametrize("select", ["uniform", "learnability", "jest"])
def test_pairs_are_selected_trained_on_and_measured_by_recall(workspace, select):
    run = train(workspace, config(select=select, name=select))
    last = run.metrics[-1]
    assert last["step"] == 8
    assert last["test_accuracy"] == pytest.approx((last["image_to_text_r10"] + last["text_to_image_r10"]) / 2)
    assert 0 <= last["image_to_text_r1"] <= last["image_to_text_r5"] <= last["image_to_text_r10"] <= 1
    assert measure(run.metrics) == "recall@10"
    assert last["candidates_mislabeled"] is not None
    rows = query(workspace, f"SELECT count(*) AS n, count(*) FILTER (selected) AS m FROM ledger WHERE run = '{select}'")
    assert rows.to_pylist() == [{"n": 8 * (16 if select == "uniform" else 80), "m": 8 * 16}]


def test_jest_picks_few_wrong_captions_at_first(workspace):
    line = train(workspace, config(select="jest", name="jest-clean")).metrics[0]
    assert line["selected_mislabeled"] < 0.5 * line["candidates_mislabeled"]


def test_status_of_pairs_leads_to_what_they_can_be_asked(workspace):
    train(workspace, config(select="uniform", name="told"))
    assert workspace_status(workspace).next.stage is Stage.MISLABELED


def test_extended_run_of_pairs_ends_as_one_that_was_not(workspace):
    whole = train(workspace, config(select="jest", name="whole"))
    train(workspace, config(select="jest", name="parts", steps=3))
    parts = train(workspace, config(select="jest", name="parts"))
    files = [f"runs/{name}/model.safetensors" for name in ("whole", "parts")]
    assert workspace.read_bytes(files[0]) == workspace.read_bytes(files[1])
    assert [line["test_loss"] for line in whole.metrics] == [line["test_loss"] for line in parts.metrics]


def test_selection_of_labels_is_refused_for_pairs(workspace):
    with pytest.raises(ConfigError, match="image-text pairs"):
        train(workspace, config(select="rho_loss"))
    assert CorpusMetadata.read(workspace).task == "pairs"
