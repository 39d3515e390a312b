"""Pairs to evaluate on, for any DataLoader and any number of ranks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny import image_of, write_workspace
from torch.utils.data import DataLoader

from rhostream import EvaluationStream, ImageSpec, WorkspaceError
from rhostream.loaders.storage import Workspace

TRAIN, TEST = 30, 23


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return write_workspace(tmp_path / "w", (TRAIN,), test_rows=TEST)


def expected(number: int) -> tuple[torch.Tensor, int]:
    label = (number * 7 + number // 3) % 3
    spec = ImageSpec(size=8)
    return spec.normalize(torch.from_numpy(spec.pixels(image_of(number, label)))[None])[0], label


def test_pairs_are_the_splits_samples_in_shard_order(workspace: Workspace) -> None:
    stream = EvaluationStream(workspace)
    assert len(stream) == TEST
    for number, (image, label) in enumerate(stream, start=TRAIN):
        assert label == expected(number)[1]
        assert torch.equal(image, expected(number)[0])
    assert torch.equal(stream[-1][0], expected(TRAIN + TEST - 1)[0])
    with pytest.raises(IndexError):
        stream[TEST]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_of_any_workers_batches_them(workspace: Workspace, workers: int) -> None:
    batches = list(DataLoader(EvaluationStream(workspace), batch_size=10, num_workers=workers))
    assert [len(images) for images, _ in batches] == [10, 10, 3]
    assert torch.cat([labels for _, labels in batches]).tolist() == [expected(TRAIN + i)[1] for i in range(TEST)]
    assert torch.equal(batches[1][0][2], expected(TRAIN + 12)[0])


def test_each_sample_belongs_to_one_rank(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    streams = []
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        streams.append(EvaluationStream(workspace))
    assert [len(stream) for stream in streams] == [6, 6, 6, 5]
    images = torch.stack([image for stream in streams for image, _ in stream])
    assert len(np.unique(images.flatten(1).numpy(), axis=0)) == TEST
    assert len(EvaluationStream(workspace, shard_by_rank=False)) == TEST


def test_a_split_without_samples_is_named(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="split 'val' holds no samples"):
        EvaluationStream(workspace, split="val")
