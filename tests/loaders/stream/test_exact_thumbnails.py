"""Raw thumbnails of images that are no larger than they are: their very pixels, to score and to train on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny import write_il, write_workspace
from torch import nn

from rhostream.loaders import CandidateStream, CorpusMetadata, ImageSpec
from rhostream.loaders.decode.augmentation import AUGMENTATIONS
from rhostream.loaders.index.thumbnails import Thumbnails
from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.thumbnails.write import write_thumbnails
from rhostream.pipeline.training.loop import train
from rhostream.pipeline.training.plan import plan_training
from rhostream.selection import OnlineSelector

SIDE = 24


@pytest.fixture
def workspace(tmp_path):
    made = write_workspace(tmp_path / "w", (30, 20), side=SIDE, test_rows=10)
    write_il(made)
    return made


def make(workspace, **settings):
    config = ThumbnailsConfig(**{"size": SIDE, "format": "raw", "workers": 0} | settings)
    summary = write_thumbnails(workspace, config)
    spec = Thumbnails.read(workspace, CorpusMetadata.read(workspace), summary.name)
    assert summary.exact == spec.is_exact
    return spec


def batches(workspace, **settings):
    return list(CandidateStream(workspace, il="strided_cnn", super_batch_size=20, **settings))


def spoil_the_originals(workspace):
    for shard in CorpusMetadata.read(workspace).split("train"):
        tar = Path(workspace.path(shard.tar))
        tar.write_bytes(b"\0" * tar.stat().st_size)


@pytest.mark.parametrize(("size", "shrunk"), [(SIDE, 0), (64, 0), (SIDE - 1, 50)])
def test_raw_thumbnails_are_exact_where_no_image_is_larger(workspace, size, shrunk):
    spec = make(workspace, size=size)
    assert (spec.shrunk, spec.is_exact) == (shrunk, not shrunk)
    assert not make(workspace, size=size, format="jpeg").is_exact


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize(
    "spec", [ImageSpec(size=SIDE), ImageSpec(size=40), ImageSpec(size=SIDE, channels=1, mean=(0.5,), std=(0.5,))]
)
def test_the_stream_gives_original_pixels_without_reading_the_originals(workspace, augmentation, spec):
    make(workspace)
    plain = batches(workspace, spec=spec, augmentation=augmentation)
    spoil_the_originals(workspace)
    exact = batches(workspace, spec=spec, augmentation=augmentation, thumbnails=f"{SIDE}-raw")
    assert [batch.keys for batch in exact] == [batch.keys for batch in plain]
    for one, other in zip(exact, plain, strict=True):
        assert one.full is None
        assert one.spec == spec
        assert torch.equal(one.images, other.images)


def test_for_smaller_images_it_is_a_thumbnails_like_another(workspace):
    make(workspace, size=40)
    for batch in batches(workspace, spec=ImageSpec(size=16), thumbnails="40-raw"):
        assert batch.full is not None


def test_the_selected_come_from_it_too(workspace):
    make(workspace)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 3))

    def taken(**settings):
        stream = CandidateStream(
            workspace, il="strided_cnn", super_batch_size=20, augmentation="shift_flip", **settings
        )
        return [(batch.keys, batch.images) for batch in OnlineSelector(model, batch_size=4)(stream)]

    plain = taken()
    spoil_the_originals(workspace)
    exact = taken(thumbnails=f"{SIDE}-raw")
    assert [keys for keys, _ in exact] == [keys for keys, _ in plain]
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(exact, plain, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("select", ["uniform", "rho_loss"])
def test_a_training_run_uses_exact_thumbnails_and_ends_alike(workspace, select):
    settings = {"select": select, "model": "mlp", "steps": 6, "batch_size": 4, "super_batch_size": 20, "device": "cpu"}
    plain = train(workspace, TrainConfig(name="plain", **settings))
    make(workspace)
    spoil_the_originals(workspace)
    exact = train(workspace, TrainConfig(name="exact", **settings))
    weights = [workspace.read_bytes(f"runs/{run.name}/model.safetensors") for run in (plain, exact)]
    assert weights[0] == weights[1]


def test_automatic_choice(workspace):
    def chosen(spec="auto", **settings):
        return plan_training(workspace, TrainConfig(thumbnails=spec, steps=1, **settings)).thumbnails

    make(workspace, size=16, format="jpeg")
    assert chosen(select="rho_loss", model="bn_cnn") == "16-jpeg"
    assert chosen(select="rho_loss", model="mlp") is None
    assert chosen(select="uniform", model="bn_cnn") is None
    make(workspace)
    exact = f"{SIDE}-raw"
    for select in ("rho_loss", "uniform"):
        for model in ("bn_cnn", "mlp"):
            assert chosen(select=select, model=model) == chosen(exact, select=select, model=model) == exact
    assert chosen("none", select="rho_loss") is None
    assert chosen(select="rho_loss", image_size=SIDE - 4) == "16-jpeg"


def test_thumbnails_are_inexact_where_one_image_is_larger(workspace):
    table = workspace.read_table("index/train-000001.parquet")
    for side in ("width", "height"):
        lengths = np.full(table.num_rows, SIDE, np.int32)
        lengths[3] += 1
        at = table.schema.get_field_index(side)
        table = table.set_column(at, table.schema.field(side), [lengths])
    workspace.write_table("index/train-000001.parquet", table)
    assert make(workspace).shrunk == 1
