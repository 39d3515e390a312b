"""The Hugging Face Trainer: dicts with labels, no second sharding, mid-epoch resume that reads nothing it skips."""

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from helpers.dropin import (
    BATCH,
    Recording,
    example_workspace,
    loader_of,
    run_example,
    sequence,
    stream_of,
    tiny_workspace,
)
from helpers.ranks import on_ranks
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

from rhostream.selection import pixel_values_and_labels


class SelectingTrainer(Trainer):
    def __init__(self, workspace, folder, **settings):
        torch.manual_seed(0)
        config = ResNetConfig(num_labels=3, embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")
        quiet = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "per_device_train_batch_size": BATCH}
        arguments = TrainingArguments(output_dir=str(folder), **({"save_strategy": "no"} | quiet | settings))
        super().__init__(ResNetForImageClassification(config), arguments)
        self.workspace = workspace
        self.seen = Recording(pixel_values_and_labels)

    def get_train_dataloader(self):
        return loader_of(stream_of(self.workspace), self.model, self.seen)


def two_epochs(workspace: str, folder: str) -> dict[str, object]:
    """On this rank."""
    settings = {"accelerator_config": {"dispatch_batches": True, "even_batches": True}}
    trainer = SelectingTrainer(workspace, folder, num_train_epochs=2, ddp_backend="gloo", **settings)
    trainer.train()
    return {"candidates": trainer.seen.candidates, "steps": trainer.state.global_step, "ranks": trainer.args.world_size}


@pytest.fixture(autouse=True)
def _no_state_of_other_tests():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    PartialState._reset_state()


@pytest.fixture
def workspace(tmp_path):
    return tiny_workspace(tmp_path / "w")


def test_the_example_trains_and_continues_from_its_last_checkpoint(tmp_path, monkeypatch):
    example_workspace(tmp_path / "w")
    arguments = (tmp_path / "w", "--output", tmp_path / "out")
    first = run_example("hf_trainer", monkeypatch, *arguments, "--steps", 2)["trainer"]
    assert (tmp_path / "out" / "checkpoint-2").is_dir()
    assert [entry["loss"] > 0 for entry in first.state.log_history if "loss" in entry] == [True, True]
    second = run_example("hf_trainer", monkeypatch, *arguments, "--steps", 4, "--resume")["trainer"]
    assert second.state.global_step == 4


def test_every_epoch_has_another_order_and_the_models_own_loss(workspace, tmp_path):
    trainer = SelectingTrainer(workspace, tmp_path / "out", num_train_epochs=2)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.train()
    assert trainer.state.global_step == 18
    assert trainer.seen.candidates == sequence(workspace, 2)
    assert any(not torch.equal(now, then) for now, then in zip(trainer.model.parameters(), before, strict=True))


@pytest.mark.parametrize("stop", [5, 13])
def test_a_resumed_run_sees_the_rest_and_reads_nothing_skipped(workspace, tmp_path, stop):
    whole = SelectingTrainer(
        workspace, tmp_path / "out", num_train_epochs=2, save_strategy="steps", save_steps=stop, seed=1
    )
    whole.train()
    resumed = SelectingTrainer(workspace, tmp_path / "again", num_train_epochs=2, seed=1)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / f"checkpoint-{stop}"))
    assert resumed.state.global_step == 18
    assert resumed.seen.candidates == sequence(workspace, 2)[stop:]
    assert resumed.seen.selected == whole.seen.selected[stop:]


def test_accumulated_gradients_take_every_batch_once(workspace, tmp_path):
    trainer = SelectingTrainer(workspace, tmp_path / "out", num_train_epochs=1, gradient_accumulation_steps=2)
    trainer.train()
    assert trainer.state.global_step == 5
    assert trainer.seen.candidates == sequence(workspace, 1)


def test_two_ranks_share_an_epoch_under_any_dispatching_setting(workspace, tmp_path):
    ranks = on_ranks("integrations.test_hf_trainer", "two_epochs", workspace.location, str(tmp_path / "out"))
    assert [(rank["ranks"], rank["steps"]) for rank in ranks] == [(2, 18), (2, 18)]
    assert [rank["candidates"] for rank in ranks] == [sequence(workspace, 2)] * 2
