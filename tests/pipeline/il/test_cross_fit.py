"""Cross-fitting: the last layer learns from all labels of what it scores but the sample's own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.corpus_fixture import write_shapes
from helpers.texts import write_texts
from torch import nn

from rhostream import ConfigError, WorkspaceError
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.il.cross_fit import Corrections, fitted_corrections, last_layer, logits_and_inputs, parts_of
from rhostream.pipeline.il.metadata import CrossFitGain, ILMetadata
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.models import Costs
from rhostream.selection.tasks import Classification, MultiLabel, Task

CLASSES, INPUTS, PARTS = 4, 6, 5


def problem(samples: int = 400) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray]:
    """Logits that know little, inputs that tell the classes, labels, parts."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (samples,), generator=generator)
    centers = torch.randn(CLASSES, INPUTS, generator=generator)
    inputs = centers[labels] + 0.5 * torch.randn(samples, INPUTS, generator=generator)
    logits = torch.randn(samples, CLASSES, generator=generator)
    return logits, inputs, labels, parts_of([str(number) for number in range(samples)], PARTS)


def fitted(
    logits: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor, dealt: np.ndarray, task: Task
) -> tuple[Corrections, CrossFitGain]:
    found = fitted_corrections(logits, inputs, targets, dealt, PARTS, task, Costs(torch.device("cpu")))
    assert found is not None
    return found


def test_the_loss_of_samples_that_were_not_fitted_to_falls() -> None:
    logits, inputs, labels, dealt = problem()
    corrections, found = fitted(logits, inputs, labels, dealt, Classification())
    corrected = corrections(logits, inputs, dealt)
    assert found.loss == pytest.approx(float(nn.functional.cross_entropy(corrected, labels)), rel=1e-5)
    assert found.loss < 0.5 * found.loss_before
    assert found.accuracy == pytest.approx(float((corrected.argmax(1) == labels).float().mean()))


def test_no_sample_learns_from_its_own_label() -> None:
    logits, inputs, labels, dealt = problem()
    before, _ = fitted(logits, inputs, labels, dealt, Classification())
    sample = int(np.flatnonzero(dealt == 3)[0])
    labels[sample] = (labels[sample] + 1) % CLASSES
    after, _ = fitted(logits, inputs, labels, dealt, Classification())
    torch.testing.assert_close(before.weights[3], after.weights[3], atol=0, rtol=0)
    changed = [float((before.weights[part] - after.weights[part]).abs().max()) for part in (0, 1, 2, 4)]
    assert min(changed) > 5e-3


def test_a_class_in_one_part_alone_keeps_its_logits() -> None:
    logits, inputs, labels, dealt = problem()
    labels[torch.from_numpy(dealt != 3)] %= CLASSES - 1
    corrections, _ = fitted(logits, inputs, labels, dealt, Classification())
    assert not corrections.weights[3][:, CLASSES - 1].any()
    assert corrections.weights[0][:, CLASSES - 1].any()


def test_several_classes_a_sample_are_fitted_too() -> None:
    logits, inputs, labels, dealt = problem()
    targets = nn.functional.one_hot(labels, CLASSES).float()
    _, found = fitted(logits, inputs, targets, dealt, MultiLabel())
    assert found.loss < 0.5 * found.loss_before


def test_corrections_that_win_nothing_are_left_out() -> None:
    _, inputs, labels, dealt = problem()
    certain = 30.0 * nn.functional.one_hot(labels, CLASSES)
    assert (
        fitted_corrections(certain, inputs, labels, dealt, PARTS, Classification(), Costs(torch.device("cpu"))) is None
    )


def test_copies_belong_to_one_part_and_parts_are_about_even() -> None:
    dealt = parts_of([f"{number // 2}" for number in range(2000)], PARTS)
    np.testing.assert_array_equal(dealt[::2], dealt[1::2])
    assert np.bincount(dealt, minlength=PARTS).min() > 300


def test_a_layer_that_makes_no_logits_is_not_fitted() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, CLASSES)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = 2 * self.layer(images.flatten(1))
            return found

    from rhostream.loaders.stream import Batch

    model = Scaled()
    layer = last_layer(model, CLASSES)
    assert layer is model.layer
    assert last_layer(model, CLASSES + 1) is None
    batch = Batch(fields={"image": torch.zeros(2, 3, 1, 1)}, labels=torch.zeros(2, dtype=torch.int64))
    assert logits_and_inputs(Classification(), model, layer, batch)[:, CLASSES:].isnan().all()


@pytest.fixture
def shapes(tmp_path: Path) -> Workspace:
    return write_shapes(tmp_path / "w", splits={"train": 150, "holdout": 60}, shard_rows=50)


def test_il_scores_are_those_that_cross_fitting_told(shapes: Workspace) -> None:
    config = ILTrainConfig(model="bn_cnn", steps=2, device="cpu")
    (model,) = train_il(shapes, config).metadata.models
    assert model.cross_fit is not None
    scores = score_il(shapes, ILScoreConfig(device="cpu"))
    assert scores.mean_il == pytest.approx(model.cross_fit.loss, rel=1e-4)
    assert scores.accuracy == pytest.approx(model.cross_fit.accuracy, abs=0.01)
    assert scores.mean_il < model.cross_fit.loss_before
    assert scores.in_sample == 0


def test_copies_of_unlike_labels_are_scored_as_told_with_folds(tmp_path: Path) -> None:
    workspace = write_shapes(tmp_path / "w", splits={"train": 240}, folds=2, copies=2, noise=0.2, shard_rows=60)
    models = train_il(workspace, ILTrainConfig(model="bn_cnn", steps=2, device="cpu")).metadata.models
    fits = [model.cross_fit for model in models if model.cross_fit is not None]
    assert [fit.file for fit in fits] == ["corrections-fold0.safetensors", "corrections-fold1.safetensors"]
    told = sum(fit.samples * fit.loss for fit in fits) / sum(fit.samples for fit in fits)
    assert score_il(workspace, ILScoreConfig(device="cpu")).mean_il == pytest.approx(told, rel=1e-4)


def test_texts_are_corrected_in_the_order_of_their_rows(tmp_path: Path) -> None:
    workspace = write_texts(tmp_path)
    (model,) = train_il(workspace, ILTrainConfig(model="bag_of_ngrams", steps=3, device="cpu")).metadata.models
    assert model.cross_fit is not None
    assert score_il(workspace, ILScoreConfig(device="cpu")).mean_il == pytest.approx(model.cross_fit.loss, rel=1e-4)


def test_zero_parts_leave_the_model_and_one_is_refused(shapes: Workspace) -> None:
    config = ILTrainConfig(model="bn_cnn", steps=2, cross_fit=0, device="cpu")
    (model,) = train_il(shapes, config).metadata.models
    assert model.cross_fit is None
    with pytest.raises(ConfigError, match="cross_fit 1: one part has no others to learn from"):
        ILTrainConfig(cross_fit=1)
    with pytest.raises(WorkspaceError, match="cross_fit 0, asked for 5"):
        train_il(shapes, ILTrainConfig(model="bn_cnn", steps=2, device="cpu"))


def test_damaged_corrections_are_told(shapes: Workspace) -> None:
    train_il(shapes, ILTrainConfig(model="bn_cnn", steps=2, device="cpu"))
    file = shapes.path("il/bn_cnn/corrections.safetensors")
    Path(file).write_bytes(Path(file).read_bytes()[:-1] + b"x")
    with pytest.raises(WorkspaceError, match=r"corrections\.safetensors is not the one that its metadata describes"):
        score_il(shapes, ILScoreConfig(device="cpu"))
    assert CorpusMetadata.read(shapes).split("train")
    assert ILMetadata.read(shapes, "bn_cnn").models[0].accuracy > 0
