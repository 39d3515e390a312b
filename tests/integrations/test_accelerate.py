"""Accelerate: `prepare` neither shards nor dispatches again, `save_state` and `load_state` keep the place."""

from itertools import islice

import pytest
import torch
from accelerate import Accelerator, DataLoaderConfiguration, skip_first_batches
from accelerate.state import AcceleratorState, GradientState, PartialState
from helpers.dropin import (
    Recording,
    example_workspace,
    loader_of,
    network,
    run_example,
    sequence,
    stream_of,
    tiny_workspace,
)
from helpers.ranks import on_ranks
from torch.nn.functional import cross_entropy

from rhostream.selection import images_and_labels


def prepared(workspace, **settings):
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**settings))
    model = network()
    seen = Recording(images_and_labels)
    loader = loader_of(stream_of(workspace), model, seen)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return accelerator, *accelerator.prepare(model, optimizer, loader), seen


def train(accelerator, model, optimizer, batches):
    for images, labels in batches:
        accelerator.backward(cross_entropy(model(images), labels))
        optimizer.step()
        optimizer.zero_grad()


def two_epochs(workspace: str, folder: str) -> dict[str, object]:
    """On this rank, with every setting of Accelerate that would share the batches out once more."""
    seen_by = {}
    attempts = {"plain": {}, "dispatch": {"dispatch_batches": True}, "split": {"split_batches": True}}
    for name, settings in attempts.items():
        accelerator, model, optimizer, loader, seen = prepared(workspace, **settings)
        for epoch in range(2):
            loader.set_epoch(epoch)
            train(accelerator, model, optimizer, loader)
        seen_by[name] = seen.candidates
        AcceleratorState._reset_state()
        GradientState._reset_state()
    accelerator, model, optimizer, loader, seen = prepared(workspace)
    train(accelerator, model, optimizer, islice(loader, 2))
    accelerator.save_state(folder)
    accelerator, model, optimizer, loader, rest = prepared(workspace)
    accelerator.load_state(folder)
    train(accelerator, model, optimizer, loader)
    seen_by["resumed"] = seen.candidates + rest.candidates
    accelerator.end_training()
    return {"candidates": seen_by, "ddp": type(model).__name__, "processes": accelerator.num_processes}


@pytest.fixture(autouse=True)
def _no_state_of_other_tests():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    PartialState._reset_state()


@pytest.fixture
def workspace(tmp_path):
    return tiny_workspace(tmp_path / "w")


def test_the_example_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    example_workspace(tmp_path / "w")
    arguments = (tmp_path / "w", "--steps", 2, "--checkpoint", tmp_path / "checkpoint")
    first = run_example("accelerate_loop", monkeypatch, *arguments)["loader"]
    assert first.state_dict()["stream"]["position"] == 640
    second = run_example("accelerate_loop", monkeypatch, *arguments)["loader"]
    assert {name: second.state_dict()[name] for name in ("epoch", "step")} == {"epoch": 1, "step": 4}


def test_prepare_returns_the_loader_unchanged_and_the_model_learns(workspace):
    accelerator, model, optimizer, loader, seen = prepared(workspace)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    train(accelerator, model, optimizer, loader)
    assert seen.candidates == sequence(workspace, 1)
    assert not any(torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))


def test_a_run_resumed_mid_epoch_sees_its_rest_selecting_alike(workspace, tmp_path):
    accelerator, model, optimizer, loader, whole = prepared(workspace)
    train(accelerator, model, optimizer, islice(loader, 4))
    accelerator.save_state(tmp_path / "checkpoint")
    train(accelerator, model, optimizer, loader)
    accelerator, model, optimizer, loader, rest = prepared(workspace)
    accelerator.load_state(tmp_path / "checkpoint")
    train(accelerator, model, optimizer, loader)
    assert rest.candidates == sequence(workspace, 1)[4:]
    assert rest.selected == whole.selected[4:]


def test_skipped_batches_are_not_read(workspace):
    _, _, _, loader, seen = prepared(workspace)
    loader.set_epoch(1)
    assert len(list(skip_first_batches(loader, 6))) == 3
    assert seen.candidates == sequence(workspace, 2)[15:]


def test_two_ranks_share_an_epoch_under_any_sharding_setting(workspace, tmp_path):
    ranks = on_ranks("integrations.test_accelerate", "two_epochs", workspace.location, str(tmp_path / "checkpoint"))
    assert [(rank["ddp"], rank["processes"]) for rank in ranks] == [("DistributedDataParallel", 2)] * 2
    for rank in ranks:
        assert rank["candidates"] == {
            "plain": sequence(workspace, 2),
            "dispatch": sequence(workspace, 2),
            "split": sequence(workspace, 2),
            "resumed": sequence(workspace, 1),
        }
