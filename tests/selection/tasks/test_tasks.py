"""Tasks: a candidate's loss is what the trainer's own loss is, whatever the model takes and gives."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.tiny import write_il, write_workspace
from torch import Tensor, nn

from rhostream import Batch, CandidateStream, Classification, ConfigError, MultiLabel, OnlineSelector, Scorer
from rhostream.loaders.storage import Workspace
from rhostream.selection import Ledger, ScoreCache

N, CLASSES = 60, 3


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = write_workspace(tmp_path / "w", (N,))
    write_il(made)
    return made


def network(classes: int = CLASSES) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, classes))


class Named(nn.Module):
    """Takes pixel values by name and gives a dictionary, as models of Hugging Face do."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = network()

    def forward(self, *, pixel_values: Tensor) -> dict[str, Tensor]:
        return {"logits": self.inside(pixel_values)}


def losses_in_ledger(workspace: Workspace, selector: OnlineSelector, ledger: Ledger) -> dict[str, float]:
    list(selector(CandidateStream(workspace, il="strided_cnn", super_batch_size=20)))
    ledger.flush()
    names = workspace.names(ledger.folder)
    rows = [row for name in names for row in workspace.read_table(f"{ledger.folder}/{name}").to_pylist()]
    return {row["key"]: row["loss"] for row in rows}


def normalized(workspace: Workspace) -> Iterator[Any]:
    yield from (batch.normalized() for batch in CandidateStream(workspace, il="strided_cnn", super_batch_size=20))


def test_label_smoothing_is_scored_as_it_is_trained(workspace: Workspace) -> None:
    model, ledger = network(), Ledger(workspace, "smooth")
    task = Classification(label_smoothing=0.2)
    found = losses_in_ledger(workspace, OnlineSelector(model, batch_size=4, task=task, ledger=ledger), ledger)
    for batch in normalized(workspace):
        expected = F.cross_entropy(model(batch.images), batch.labels, reduction="none", label_smoothing=0.2)
        assert [found[key] for key in batch.keys] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("cached", [False, True])
def test_a_dictionary_model_with_a_focal_loss_is_scored(workspace: Workspace, cached: bool) -> None:
    model, ledger = Named(), Ledger(workspace, "focal")

    def focal(outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        losses = F.cross_entropy(outputs["logits"], batch.labels, reduction="none")
        return (1 - torch.exp(-losses)) ** 2 * losses

    selector = OnlineSelector(
        model,
        batch_size=4,
        forward=lambda model, batch: model(pixel_values=batch.images),
        criterion=focal,
        cache=ScoreCache(2) if cached else None,
        score_ahead=True,
        ledger=ledger,
    )
    found = losses_in_ledger(workspace, selector, ledger)
    for batch in normalized(workspace):
        expected = focal(model(pixel_values=batch.images), batch)
        assert [found[key] for key in batch.keys] == pytest.approx(expected.tolist(), abs=1e-5)


def test_multi_label_losses_are_the_mean_of_the_classes() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    batch = Batch(fields={}, labels=torch.tensor([[True, False], [False, True]]))
    task = MultiLabel()
    expected = [
        F.binary_cross_entropy_with_logits(z, y.float()).item() for z, y in zip(logits, batch.labels, strict=True)
    ]
    assert task.losses(logits, batch).tolist() == pytest.approx(expected)
    assert task.correct(logits, batch).tolist() == [True, False]
    scorer = Scorer(network(2), task=task)
    images = torch.zeros(2, 3, 8, 8)
    assert scorer.losses(Batch(fields={"image": images}, labels=batch.labels)).shape == (2,)


@pytest.mark.parametrize("select", ["grad_norm", "entropy"])
def test_a_task_without_logits_refuses_functions_of_them(workspace: Workspace, select: str) -> None:
    selector = OnlineSelector(network(), batch_size=4, select=select, criterion=lambda outputs, batch: outputs[:, 0])
    with pytest.raises(ConfigError, match=f"'{select}' reads logits over classes, which the task Classification with"):
        next(selector(CandidateStream(workspace, super_batch_size=20)))


def test_a_criterion_that_takes_the_mean_is_refused(workspace: Workspace) -> None:
    selector = OnlineSelector(
        network(), batch_size=4, criterion=lambda outputs, batch: F.cross_entropy(outputs, batch.labels)
    )
    with pytest.raises(ConfigError, match=r"losses of shape \(\) for 20 samples: it must give one number a sample"):
        next(selector(CandidateStream(workspace, il="strided_cnn", super_batch_size=20)))


def test_a_scorer_and_a_task_beside_it_are_refused() -> None:
    model = network()
    with pytest.raises(ConfigError, match="a scorer has a task of its own"):
        OnlineSelector(model, scorer=Scorer(model), task=MultiLabel())
