"""Batches of an IL training: the stream's own, whether pixels are held in memory or decoded every time."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.corpus_fixture import write_shapes

from rhostream import ShardError
from rhostream.loaders import CandidateStream, Order
from rhostream.loaders.decode.augmentation import AUGMENTATIONS, Augmentation
from rhostream.loaders.decode.image_reader import ImageReader
from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.loaders.storage.workspace import Workspace
from rhostream.loaders.stream import Batch, Ranks
from rhostream.pipeline.config.il_config import ILTrainConfig
from rhostream.pipeline.il.samples import TrainingSamples


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return write_shapes(tmp_path / "w", splits={"holdout": 50, "train": 10}, shard_rows=20)


def samples_of(workspace: Workspace, augmentation: Augmentation = "none", **settings: Any) -> TrainingSamples:
    corpus = CorpusMetadata.read(workspace)
    return TrainingSamples(
        workspace,
        corpus.split("holdout"),
        corpus.image_spec(),
        batch_size=16,
        augmentation=augmentation,
        seed=3,
        threads=1,
        **settings,
    )


def batches_of(samples: TrainingSamples, epoch: int = 0, first: int = 0) -> list[Batch]:
    return [share.batch for share in samples.batches(epoch, first)]


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("held_bytes", [1 << 20, 0])
def test_every_epoch_has_the_streams_batches(workspace: Workspace, augmentation: Augmentation, held_bytes: int) -> None:
    samples = samples_of(workspace, augmentation, held_bytes=held_bytes)
    corpus = CorpusMetadata.read(workspace)
    stream = CandidateStream(
        workspace,
        super_batch_size=16,
        seed=3,
        shards=corpus.split("holdout"),
        augmentation=augmentation,
        order=Order(last="keep"),
    )
    for epoch in (2, 0, 1):
        stream.set_epoch(epoch)
        expected, found = list(stream), batches_of(samples, epoch)
        assert len(found) == len(samples) == len(expected)
        for one, batch in zip(found, expected, strict=True):
            assert torch.equal(one.images, batch.images)
            assert torch.equal(one.labels, batch.labels)


def test_equal_files_are_read_once_and_all_trained_on(tmp_path, monkeypatch) -> None:
    workspace = write_shapes(tmp_path / "w", splits={"holdout": 50, "train": 10}, shard_rows=20, copies=3)
    read: list[int] = []
    submit = ImageReader.submit
    monkeypatch.setattr(
        ImageReader,
        "submit",
        lambda self, refs, *rest, **more: read.append(len(refs)) or submit(self, refs, *rest, **more),
    )
    held, streamed = samples_of(workspace), samples_of(workspace, held_bytes=0)
    batches = batches_of(held)
    assert sum(read) == 17  # of 50, over three shards
    for one, expected in zip(batches, batches_of(streamed), strict=True):
        assert torch.equal(one.images, expected.images)
        assert torch.equal(one.labels, expected.labels)


def test_held_pixels_are_read_once_and_let_go(workspace: Workspace) -> None:
    held, streamed = samples_of(workspace), samples_of(workspace, held_bytes=50 * 20 * 20 * 3 - 1)
    for samples in (held, streamed):
        batches_of(samples)
    for shard in CorpusMetadata.read(workspace).split("holdout"):
        tar = Path(workspace.path(shard.tar))
        tar.write_bytes(b"\0" * tar.stat().st_size)
    assert sum(map(len, batches_of(held, 1))) == 50
    with pytest.raises(ShardError):
        batches_of(streamed, 1)
    held.close()
    with pytest.raises(ShardError):
        batches_of(held, 1)


def test_a_damaged_image_is_told_when_it_is_first_read(workspace: Workspace) -> None:
    shard = CorpusMetadata.read(workspace).split("holdout")[1]
    row = workspace.read_table(shard.index).to_pylist()[4]
    with Path(workspace.path(shard.tar)).open("r+b") as tar:
        tar.seek(row["offset"] + row["size"] // 2)
        tar.write(b"garbled!")
    with pytest.raises(ShardError, match=row["key"]):
        batches_of(samples_of(workspace))


def test_a_training_goes_on_in_the_middle_of_an_epoch(workspace: Workspace) -> None:
    for held_bytes in (1 << 20, 0):
        samples = samples_of(workspace, "shift_flip", held_bytes=held_bytes)
        whole, rest = batches_of(samples, 1), batches_of(samples, 1, first=2)
        assert len(rest) == len(whole) - 2 > 0
        assert all(torch.equal(one.images, other.images) for one, other in zip(whole[2:], rest, strict=True))


@pytest.mark.parametrize("held_bytes", [1 << 20, 0])
def test_processes_share_out_every_batch_and_its_mean(workspace: Workspace, held_bytes: int) -> None:
    whole = batches_of(samples_of(workspace, "shift", held_bytes=held_bytes))
    ranks = [samples_of(workspace, "shift", held_bytes=held_bytes, ranks=Ranks(rank, 3)) for rank in range(3)]
    for batch, *shares in zip(whole, *(samples.batches(0) for samples in ranks), strict=True):
        assert {share.of for share in shares} == {len(batch)}
        counted = [share.batch.images for share in shares if share.counts]
        assert len(batch) == sum(map(len, counted))
        assert torch.equal(torch.cat(counted).sum(0), batch.images.sum(0))
        means = [share.weight * share.batch.images.double().mean(0) for share in shares]
        torch.testing.assert_close(torch.stack(means).mean(0), batch.images.double().mean(0))
    assert [len(share.batch) for share in shares] == [2, 2, 2]  # of the two that end the epoch


def test_the_learning_rate_rises_and_stays() -> None:
    config = ILTrainConfig(learning_rate=0.5)
    rates = [config.rate_at(step) for step in range(300)]
    assert rates[:100] == sorted(rates[:100])
    assert rates[0] == pytest.approx(0.005)
    assert set(rates[99:]) == {0.5}


def test_a_linear_schedule_warms_up_and_ends_with_the_steps() -> None:
    config = ILTrainConfig(learning_rate=0.5, schedule="linear", warmup=0.1, steps=20)
    rates = [config.rate_at(step) for step in range(20)]
    assert rates[:3] == pytest.approx([0.25, 0.5, 0.5])
    assert rates[-1] == pytest.approx(0.5 / 18)
    assert rates[1:] == sorted(rates[1:], reverse=True)
