"""Recall both ways, with equal captions, and zero-shot classes by prompts."""

import pytest
import torch
import torch.nn.functional as F

from rhostream.errors import ConfigError
from rhostream.pipeline.models import retrieval, retrieval_recall
from rhostream.pipeline.models.retrieval import class_embeddings, zero_shot_accuracy


@pytest.mark.parametrize("rows", [1_024, 3])
def test_recall_counts_queries_whose_right_key_is_near(monkeypatch, rows):
    monkeypatch.setattr(retrieval, "_ROWS", rows)
    random = torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(40, 6, generator=random), dim=1) for _ in range(2))
    found = retrieval_recall(images, texts, [str(at) for at in range(40)], ks=(1, 5, 40))
    for name, alike in (("image_to_text", images @ texts.T), ("text_to_image", texts @ images.T)):
        ranks = (alike > alike.diagonal()[:, None]).sum(1)
        for k in (1, 5, 40):
            assert found[f"{name}_r{k}"] == pytest.approx(float((ranks < k).double().mean()))
    assert found["image_to_text_r40"] == 1.0


def test_equal_captions_count_as_right():
    images, texts = torch.eye(3), torch.eye(3)[[1, 0, 2]]
    assert retrieval_recall(images, texts, ["a", "b", "c"], ks=(1,)) == {
        "image_to_text_r1": pytest.approx(1 / 3),
        "text_to_image_r1": pytest.approx(1 / 3),
    }
    assert set(retrieval_recall(images, texts, ["a", "a", "c"], ks=(1,)).values()) == {1.0}


def test_constant_model_finds_nothing():
    same = torch.ones(8, 2) / 2**0.5
    assert set(retrieval_recall(same, same, list("abcdefgh"), ks=(1, 5)).values()) == {0.0}


def test_captions_of_another_number_are_refused():
    with pytest.raises(ConfigError, match="2 images, 2 texts and 1 captions"):
        retrieval_recall(torch.eye(2), torch.eye(2), ["a"])


def test_classes_are_found_by_the_mean_of_their_prompts():
    prompts = F.normalize(torch.tensor([[[1.0, 0.1], [1.0, -0.2]], [[0.0, 1.0], [0.3, 1.0]]]), dim=2)
    classes = class_embeddings(prompts)
    assert torch.allclose(classes.norm(dim=1), torch.ones(2))
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert zero_shot_accuracy(images, classes, torch.tensor([0, 1, 1])) == pytest.approx(2 / 3)
