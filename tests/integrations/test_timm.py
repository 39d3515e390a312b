"""timm: what its train script asks of a loader, with timm's own parts."""

from itertools import islice

import pytest
import torch
from helpers.dropin import BATCH, Recording, example_workspace, loader_of, run_example, stream_of, tiny_workspace
from timm import create_model
from timm.data import Mixup
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask
from torch import nn

from rhostream.selection import images_and_labels


@pytest.fixture
def workspace(tmp_path):
    return tiny_workspace(tmp_path / "w")


def small_model():
    torch.manual_seed(0)
    return create_model("test_resnet", num_classes=3)


@pytest.mark.parametrize("mixup", [0.0, 0.8])
def test_the_example_has_epochs_as_long_as_without_selection(tmp_path, monkeypatch, capsys, mixup):
    example_workspace(tmp_path / "w")
    names = run_example(
        "timm_loop", monkeypatch, tmp_path / "w", "--steps", 2, "--model", "test_resnet", "--mixup", mixup
    )
    assert names["selector"].step == 30
    assert "over 960 samples" in capsys.readouterr().out


def test_batches_are_exact_pairs_and_end_at_the_stated_length(workspace):
    model = small_model()
    task = ClassificationTask(model, device=torch.device("cpu"), verbose=False)
    seen = Recording(images_and_labels)
    loader = loader_of(stream_of(workspace, super_batch_size=48), model, seen)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler, epochs = create_scheduler_v2(
        optimizer, num_epochs=2, step_on_epochs=False, updates_per_epoch=len(loader), warmup_epochs=0
    )
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        for index, batch in enumerate(loader):
            assert type(batch) is tuple
            images, target = batch
            assert images.shape == (BATCH, 3, 8, 8) or index == len(loader) - 1
            task(images, target)["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step_update(num_updates=epoch * len(loader) + index + 1)
        assert index == len(loader) - 1
    stream = stream_of(workspace, super_batch_size=48)
    assert seen.candidates == [super_batch.keys for _ in range(2) for super_batch in stream]


def test_mixup_takes_the_pairs(workspace):
    loader = loader_of(stream_of(workspace), nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), images_and_labels)
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=3)
    for images, target in islice(loader, 3):
        mixed, soft = mixup(images, target)
        assert mixed.shape == (BATCH, 3, 8, 8)
        assert torch.allclose(soft.sum(dim=1), torch.ones(BATCH))
