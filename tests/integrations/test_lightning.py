"""Lightning: its own samplers stay away, `set_epoch` reaches the stream, a checkpoint continues in mid-epoch."""

import pytest
import torch
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
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from rhostream.selection import images_and_labels


class Classifier(LightningModule):
    """As it stands in any script, but for `train_dataloader`."""

    def __init__(self, workspace, workers=0):
        super().__init__()
        self.network = network()
        self.network[3] = nn.Identity()  # Lightning's checkpoints hold no random state: without dropout they compare
        self.seen = Recording(images_and_labels)
        self.workspace, self.workers = workspace, workers

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return cross_entropy(self(images), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        stream = stream_of(self.workspace)
        source = DataLoader(stream, batch_size=None, num_workers=self.workers) if self.workers else stream
        return loader_of(source, self, self.seen)


def fit(module, ckpt_path=None, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(**(quiet | {"enable_checkpointing": False} | settings))
    trainer.fit(module, ckpt_path=ckpt_path)
    return trainer


def two_epochs(workspace: str) -> dict[str, object]:
    """On this rank."""
    module = Classifier(workspace)
    trainer = fit(module, max_epochs=2, devices=2, strategy="ddp")
    return {
        "candidates": module.seen.candidates,
        "steps": trainer.global_step,
        "ranks": trainer.world_size,
        "sampler": type(trainer.train_dataloader.sampler).__name__,
    }


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tiny_workspace(tmp_path / "w")


def test_the_example_trains_and_continues_from_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example_workspace(tmp_path / "w")
    first = run_example("lightning_trainer", monkeypatch, tmp_path / "w", "--steps", 2)
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    assert first["trainer"].global_step == 2
    second = run_example("lightning_trainer", monkeypatch, tmp_path / "w", "--steps", 4, "--resume", checkpoint)
    assert second["loader"].state_dict()["step"] == 4


def test_every_epoch_has_another_order_and_the_stated_length(workspace):
    module = Classifier(workspace)
    before = module.network[5].weight.detach().clone()
    trainer = fit(module, max_epochs=3)
    assert trainer.num_training_batches == 9
    assert trainer.global_step == 27
    assert module.seen.candidates == sequence(workspace, 3)
    assert not torch.equal(module.network[5].weight, before)


def test_the_next_epoch_begins_anew_after_one_cut_short(workspace):
    module = Classifier(workspace)
    fit(module, max_epochs=2, limit_train_batches=4)
    expected = sequence(workspace, 2)
    assert module.seen.candidates == expected[:4] + expected[9:13]


@pytest.mark.parametrize("stop", [5, 9])
def test_a_checkpoint_continues_with_exactly_the_rest(workspace, tmp_path, stop):
    whole = Classifier(workspace)
    every = ModelCheckpoint(tmp_path / "kept", every_n_train_steps=stop, save_top_k=-1, filename="{step}")
    fit(whole, max_epochs=2, callbacks=[every], enable_checkpointing=True)
    resumed = Classifier(workspace, workers=2)
    trainer = fit(resumed, ckpt_path=tmp_path / "kept" / f"step={stop}.ckpt", max_epochs=2)
    assert trainer.global_step == 18
    assert resumed.seen.candidates == sequence(workspace, 2)[stop:]
    assert resumed.seen.selected == whole.seen.selected[stop:]


def test_a_checkpoint_at_max_steps_continues_with_the_epochs_rest(workspace, tmp_path):
    ended = ModelCheckpoint(tmp_path / "kept", filename="{step}")
    fit(Classifier(workspace), max_steps=5, callbacks=[ended], enable_checkpointing=True)
    resumed = Classifier(workspace)
    fit(resumed, ckpt_path=tmp_path / "kept" / "step=5.ckpt", max_steps=10)
    # Lightning counts the epoch that it cut short as done, and numbers the next one 2.
    assert resumed.seen.candidates == sequence(workspace, 1)[5:] + sequence(workspace, 3)[18:19]


def test_two_ranks_share_an_epoch_and_keep_their_sampler(workspace):
    ranks = on_ranks("integrations.test_lightning", "two_epochs", workspace.location)
    assert [(rank["ranks"], rank["steps"], rank["sampler"]) for rank in ranks] == [(2, 18, "TurnSampler")] * 2
    assert [rank["candidates"] for rank in ranks] == [sequence(workspace, 2)] * 2


def test_lightnings_own_fsdp_refuses_cpus():
    with pytest.raises(ValueError, match="`fsdp` requires a GPU accelerator"):
        Trainer(accelerator="cpu", strategy="fsdp")
