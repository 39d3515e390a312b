"""A trainer's own augmentation of what was selected: reproducible, and without a trace on the training."""

import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import write_il, write_workspace
from torch import Tensor, nn

from rhostream import CandidateStream, ConfigError, OnlineSelector, PerBatch, PerSample, SelectedBatch
from rhostream.loaders.storage import Workspace
from rhostream.selection.transforms import transformed


@pytest.fixture(scope="module")
def v2() -> ModuleType:
    """Its import takes seconds, of which a process that runs other files is spared."""
    from torchvision.transforms import v2

    return v2


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = write_workspace(tmp_path / "w", (60,), side=16)
    write_il(made)
    return made


def selector_of(transform: Any, **settings: Any) -> OnlineSelector:
    torch.manual_seed(0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 3))
    return OnlineSelector(model, batch_size=4, transform=transform, **settings)


def batches(workspace: Workspace, transform: Any, epoch: int = 0) -> list[SelectedBatch]:
    stream = CandidateStream(workspace, il="strided_cnn", super_batch_size=20)
    stream.set_epoch(epoch)
    return list(selector_of(transform)(stream))


def by_timm() -> PerSample:
    transforms = pytest.importorskip("timm.data.auto_augment", reason="NOT TESTED: timm is not installed")
    return PerSample(transforms.rand_augment_transform("rand-m9-mstd0.5", {}), pil=True)


@pytest.mark.parametrize(
    "transform",
    [
        lambda v2: v2.RandAugment(),
        lambda v2: PerBatch(v2.ColorJitter(brightness=0.9)),
        lambda v2: PerSample(v2.RandomCrop(12), pil=True),
        pytest.param(lambda _: by_timm(), marks=pytest.mark.slow),  # its import
    ],
    ids=["randaugment", "batch", "pil", "timm"],
)
def test_a_transform_is_repeatable_and_leaves_random_numbers_alone(
    workspace: Workspace, v2: ModuleType, transform: Callable[[ModuleType], Any]
) -> None:
    chosen = transform(v2)
    first = batches(workspace, chosen)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    transformed(chosen, images, ["a", "b"], "seed")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    second = batches(workspace, chosen)
    plain = batches(workspace, None)
    for one, other, without in zip(first, second, plain, strict=True):
        assert one.keys == other.keys == without.keys
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.thumbnails, without.images)
    assert not all(torch.equal(one.images, two.images) for one, two in zip(first, plain, strict=True))


def test_a_resumed_selector_transforms_as_if_never_stopped(workspace: Workspace, v2: ModuleType) -> None:
    whole = batches(workspace, v2.RandAugment())
    stream = CandidateStream(workspace, il="strided_cnn", super_batch_size=20)
    first = selector_of(v2.RandAugment())
    next(first(stream))
    state = first.state_dict()
    resumed, again = selector_of(v2.RandAugment()), CandidateStream(workspace, il="strided_cnn", super_batch_size=20)
    resumed.load_state_dict(state, again)
    rest = list(resumed(again))
    assert resumed.step == 3
    for one, other in zip(rest, whole[1:], strict=True):
        assert one.keys == other.keys
        assert torch.equal(one.images, other.images)


def test_each_epoch_transforms_a_sample_otherwise(workspace: Workspace, v2: ModuleType) -> None:
    def images(epoch: int) -> dict[str, Tensor]:
        found = batches(workspace, v2.ColorJitter(brightness=0.9), epoch)
        return {key: image for batch in found for key, image in zip(batch.keys, batch.images, strict=True)}

    first, second = images(0), images(1)
    shared = first.keys() & second.keys()
    assert shared
    assert not any(torch.equal(first[key], second[key]) for key in shared)


def test_float_images_are_not_normalized_again(workspace: Workspace, v2: ModuleType) -> None:
    for batch in batches(workspace, v2.ToDtype(torch.float32, scale=True)):
        assert 0 <= float(batch.images.min()) < float(batch.images.max()) <= 1


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda image: image[:, : 8 + int(image[1, 0, 0]) % 5], "images of the sizes"),
        (lambda image: 3, "does not return a tensor for each image"),
        (PerBatch(lambda images: images[:1]), "return as many images"),
        (lambda image: image.long(), "return uint8, or float"),
    ],
)
def test_what_gives_no_images_is_refused(workspace: Workspace, transform: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        batches(workspace, transform)
