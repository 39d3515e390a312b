"""`rho train` on image-text pairs: alone and jointly selected, measured by recall, resumed to the same bytes."""

from dataclasses import replace

import pytest
import torch
from helpers.pair_corpus import REFERENCE, write_pairs_with_reference
from helpers.pairs import Towers, pairs_super_batch

from rhostream.errors import ConfigError, Stage
from rhostream.loaders.index import CorpusMetadata
from rhostream.pipeline.config import ILScoreConfig, ILTrainConfig, ThumbnailsConfig, TrainConfig
from rhostream.pipeline.il import score_il, train_il
from rhostream.pipeline.report import workspace_status
from rhostream.pipeline.sql import query
from rhostream.pipeline.thumbnails import write_thumbnails
from rhostream.pipeline.training import measure, train
from rhostream.pipeline.training.mixed_resolution import mixed_outputs
from rhostream.selection import OnlineSelector, Pairs


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return write_pairs_with_reference(tmp_path_factory.mktemp("train") / "w")


def config(**settings):
    usual = {
        "model": "small_clip", "batch_size": 16, "super_batch_size": 80, "steps": 8, "device": "cpu",
        "tensorboard": False, "evaluate_every": 4, "schedule": "constant",
    }  # fmt: skip
    return TrainConfig(**usual | settings)


@pytest.mark.parametrize("select", ["uniform", "drrho", "learnability", "jest"])
def test_pairs_are_selected_trained_on_and_measured_by_recall(workspace, select):
    run = train(workspace, config(select=select, name=select))
    last = run.metrics[-1]
    assert last["step"] == 8
    assert last["test_accuracy"] == pytest.approx((last["image_to_text_r10"] + last["text_to_image_r10"]) / 2)
    assert 0 <= last["image_to_text_r1"] <= last["image_to_text_r5"] <= last["image_to_text_r10"] <= 1
    assert measure(run.metrics) == "recall@10"
    assert last["candidates_mislabeled"] is not None
    rows = query(workspace, f"SELECT count(*) AS n, count(*) FILTER (selected) AS m FROM ledger WHERE run = '{select}'")
    assert rows.to_pylist() == [{"n": 8 * (16 if select in ("uniform", "drrho") else 80), "m": 8 * 16}]


def test_jest_picks_few_wrong_captions_at_first(workspace):
    # A reference of half as many steps is itself wrong so often that the first batches are as well.
    train_il(workspace, replace(REFERENCE, steps=120, name="long"))
    score_il(workspace, ILScoreConfig(name="long", device="cpu"))
    line = train(workspace, config(select="jest", name="jest-clean", il="long")).metrics[0]
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


def test_half_of_a_batch_is_trained_on_small(workspace):
    with pytest.raises(ConfigError, match="scores on none that are smaller"):
        train(workspace, config(select="jest", name="mixed", mixed_resolution=0.5))
    write_thumbnails(workspace, ThumbnailsConfig(size=8, format="raw", workers=0))
    run, whole = (
        train(workspace, config(select="jest", name=f"mixed-{share}", mixed_resolution=share)) for share in (0.5, 0.0)
    )
    flops = [line["flops_train"] for line in (run.metrics[-1], whole.metrics[-1])]
    assert 0.6 * flops[1] < flops[0] < 0.8 * flops[1]
    assert run.metrics[-1]["train_loss"] > 0


def test_mixed_outputs_are_of_the_pairs_in_their_order(workspace):
    model, batch = Towers(), pairs_super_batch(9).normalized()
    chosen = OnlineSelector(model, select="uniform", batch_size=9, task=Pairs()).select(pairs_super_batch(9))
    assert chosen is not None
    small = replace(chosen, fields={**chosen.fields, "thumbnail": chosen.images})
    whole = Pairs().outputs(model, batch)
    for share in (0.5, 0.3, 1.0):
        for name, rows in mixed_outputs(model, small, Pairs(), share).items():
            assert torch.allclose(rows, whole[name]), name


def test_twin_of_the_reference_scores_in_the_learners_place(workspace):
    train_il(workspace, ILTrainConfig(name="twin", model="tiny_clip", steps=10, batch_size=64, device="cpu"))
    score_il(workspace, ILScoreConfig(name="twin", device="cpu"))
    settings = {"select": "learnability", "il": "twin", "thumbnails": "none"}
    runs = {
        name: train(workspace, config(name=name, proxy=name == "by-twin", **settings)) for name in ("by-twin", "own")
    }
    scored = {name: run.metrics[-1]["flops_score"] for name, run in runs.items()}
    assert scored["by-twin"] < 0.6 * scored["own"]  # the twin's own training included
    with pytest.raises(ConfigError, match="another tokenizer"):
        train(workspace, config(name="other", proxy=True, text_length=8, **settings))


def test_selection_of_labels_is_refused_for_pairs(workspace):
    with pytest.raises(ConfigError, match="image-text pairs"):
        train(workspace, config(select="rho_loss"))
    assert CorpusMetadata.read(workspace).task == "pairs"
