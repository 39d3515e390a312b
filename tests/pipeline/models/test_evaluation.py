"""Evaluation: the right numbers, on the right samples, without a trace on the model."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.corpus_fixture import write_shapes
from torch.nn import functional

from rhostream import ShardError, WorkspaceError
from rhostream.loaders.index.corpus_metadata import CorpusMetadata, read_shard_rows
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.models.class_counts import macro_f1, matthews_correlation
from rhostream.pipeline.models.costs import Costs
from rhostream.pipeline.models.evaluation import EvaluationSet, calibrated_loss
from rhostream.pipeline.models.registry import build_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return write_shapes(tmp_path_factory.mktemp("shapes"), splits={"train": 90, "test": 50}, shard_rows=40)


def test_loss_and_accuracy_are_the_samples_the_model_stays_unchanged(shapes: Workspace) -> None:
    corpus = CorpusMetadata.read(shapes)
    samples = EvaluationSet(shapes, corpus.split("test"), corpus.image_spec(), batch_size=17)
    model = build_model("bn_cnn", 4, corpus.image_spec(), seed=0).train()
    list(model.children())[1].eval()
    flags, buffers = [m.training for m in model.modules()], {k: v.clone() for k, v in model.state_dict().items()}
    costs = Costs()
    evaluation = samples.evaluate(model, CPU, costs=costs)
    assert [m.training for m in model.modules()] == flags
    assert all(torch.equal(value, buffers[key]) for key, value in model.state_dict().items())
    batches = list(samples.batches())
    images, labels = torch.cat([each.images for each in batches]), torch.cat([each.labels for each in batches])
    expected = np.concatenate([read_shard_rows(shapes, shard).labels for shard in corpus.split("test")])
    assert labels.tolist() == expected.tolist()
    with torch.no_grad():
        logits = model.eval()(corpus.image_spec().normalize(images))
    assert evaluation.samples == 50
    assert evaluation.loss == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-5)
    assert evaluation.accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    predicted = logits.argmax(1)
    assert evaluation.matthews_correlation == pytest.approx(matthews_correlation(predicted, labels), abs=1e-12)
    assert evaluation.macro_f1 == pytest.approx(macro_f1(predicted, labels), abs=1e-12)
    assert costs.seconds["evaluate"] > 0
    assert costs.operations["evaluate"] > 0


def test_pixels_that_do_not_fit_the_cache_give_the_same(shapes: Workspace) -> None:
    corpus = CorpusMetadata.read(shapes)
    model = build_model("strided_cnn", 4, corpus.image_spec(), seed=0)
    cached, decoded = (
        EvaluationSet(shapes, corpus.split("train"), corpus.image_spec(), batch_size=32, cache_bytes=size)
        for size in (1 << 20, 10)
    )
    first = cached.evaluate(model, CPU)
    assert cached.evaluate(model, CPU) == first == decoded.evaluate(model, CPU) == decoded.evaluate(model, CPU)


def pictures(samples: EvaluationSet) -> list[bytes]:
    return sorted(image.numpy().tobytes() for batch in samples.batches() for image in batch.images)


def test_a_part_is_chosen_by_keys_not_by_shard_order(shapes: Workspace) -> None:
    corpus = CorpusMetadata.read(shapes)
    shards = corpus.split("train")
    part = EvaluationSet(shapes, shards, corpus.image_spec(), at_most=18)
    turned = EvaluationSet(shapes, shards[::-1], corpus.image_spec(), at_most=18)
    assert len(part) == 18
    assert pictures(part) == pictures(turned)
    assert len(EvaluationSet(shapes, shards, corpus.image_spec(), at_most=1000)) == 90
    for shard in shards:
        assert set(pictures(part)) - set(pictures(EvaluationSet(shapes, (shard,), corpus.image_spec())))


def test_an_image_damaged_after_it_was_stored_is_named(tmp_path: Path) -> None:
    workspace = write_shapes(tmp_path, splits={"test": 20})
    corpus = CorpusMetadata.read(workspace)
    shard = corpus.split("test")[0]
    rows = read_shard_rows(workspace, shard)
    with Path(workspace.path(shard.tar)).open("r+b") as tar:
        tar.seek(int(rows.offsets[3]))
        tar.write(bytes(int(rows.sizes[3])))
    with pytest.raises(ShardError, match=r"test-000000.tar row 3, key 'k000003'"):
        EvaluationSet(workspace, corpus.split("test"), corpus.image_spec()).evaluate(
            build_model("mlp", 4, corpus.image_spec(), seed=0), CPU
        )


def test_nothing_to_evaluate_on_is_an_error(shapes: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="no samples"):
        EvaluationSet(shapes, (), CorpusMetadata.read(shapes).image_spec())


@pytest.mark.slow
def test_the_calibrated_loss_is_the_lowest_over_all_temperatures() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (400,), generator=generator)
    informed = torch.randn(400, 5, generator=generator) + 1.5 * functional.one_hot(labels, 5)
    found = []
    for scale in (0.2, 1.0, 7.0):
        logits = scale * informed
        inverses = torch.logspace(-2, 1, 400).tolist()
        losses = [float(functional.cross_entropy(inverse * logits, labels)) for inverse in inverses]
        found.append(calibrated_loss(logits, labels))
        assert found[-1] == pytest.approx(min(losses), abs=1e-4)
        assert found[-1] <= float(functional.cross_entropy(logits, labels)) + 1e-9
    assert found == pytest.approx([found[0]] * 3, abs=1e-6)
    assert 0 <= calibrated_loss(100.0 * functional.one_hot(labels, 5), labels) < 1e-3  # always right
    assert calibrated_loss(torch.zeros(400, 5), labels) == pytest.approx(math.log(5))
    assert math.isnan(calibrated_loss(torch.full((4, 5), math.nan), labels[:4]))
