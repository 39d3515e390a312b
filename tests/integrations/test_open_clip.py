"""open_clip: its own `train_one_epoch` and `DataInfo` on selected images and texts."""

import re
from collections import Counter

import pytest
from helpers.dropin import example_workspace, run_example
from helpers.pair_corpus import write_pairs
from helpers.tiny import CLASSES

from rhostream.pipeline.config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.il import score_il, train_il
from rhostream.pipeline.sql import query
from rhostream.selection import data_loader as selection_loader


def test_the_example_trains_epochs_of_open_clips_own_loop(tmp_path, monkeypatch, caplog):
    workspace = example_workspace(tmp_path / "w")
    candidates, epochs = [], []
    pairs = selection_loader.images_and_labels

    def noted(batch):
        candidates.append(batch.super_batch.keys)
        epochs.append(batch.super_batch.epoch)
        return pairs(batch)

    monkeypatch.setattr("rhostream.images_and_labels", noted)
    with caplog.at_level("INFO"):
        names = run_example("open_clip_loop", monkeypatch, workspace.location, "--steps", 4)
    loader, info = names["loader"], names["data"]["train"]
    assert (loader.num_batches, loader.num_samples) == (3, 96)
    assert epochs == [0, 0, 0, 1, 1, 1]
    first, second = ([key for keys in part for key in keys] for part in (candidates[:3], candidates[3:]))
    assert Counter(first) == Counter(second) == Counter(f"s{number}" for number in range(960))
    assert first != second
    # open_clip's own log counts batches and samples by the loader's.
    assert re.findall(r"Train Epoch: (\d) \[ *(\d+)/(\d+) \((\d+)%\)\]", caplog.text)[:3] == [
        ("0", "32", "96", "33"),
        ("0", "64", "96", "67"),
        ("0", "96", "96", "100"),
    ]
    info.set_epoch(7)
    assert loader.state_dict()["stream"]["epoch"] == 7
    images, texts = next(iter(loader))
    assert images.shape == (32, 3, 8, 8)
    assert texts.shape == (32, 77)
    assert {tuple(row) for row in texts.tolist()} <= {tuple(row) for row in names["prompts"].tolist()}
    assert len(names["prompts"]) == len(CLASSES)


@pytest.mark.slow
def test_pairs_that_jest_selects_train_in_open_clips_own_loop(tmp_path, monkeypatch, caplog):
    workspace = write_pairs(tmp_path, 320, wrong=0.4, holdout=200)
    train_il(workspace, ILTrainConfig(model="small_clip", steps=80, batch_size=64, device="cpu"))
    score_il(workspace, ILScoreConfig(device="cpu"))
    with caplog.at_level("INFO"):
        names = run_example("open_clip_pairs", monkeypatch, workspace.location, "--steps", 4)
    names["ledger"].close()
    assert names["loader"].num_batches == 2
    assert len(re.findall(r"Contrastive_loss: ", caplog.text)) == 4
    rows = query(workspace, "SELECT mismatched, selected FROM ledger JOIN samples USING (key)").to_pylist()
    assert (len(rows), sum(row["selected"] for row in rows)) == (4 * 160, 4 * 32)
    wrong = {chosen: [row["mismatched"] for row in rows if row["selected"] is chosen] for chosen in (True, False)}
    assert sum(wrong[True]) / len(wrong[True]) < sum(wrong[False]) / len(wrong[False])
