"""Pairs: losses as SigLIP and CLIP define them, of any batch, at any temperature, from embeddings alone."""

import pytest
import torch
import torch.nn.functional as F

from rhostream import Batch, ConfigError, Pairs
from rhostream.loaders.reference import PairReference
from rhostream.selection import PairEmbeddings
from rhostream.selection.tasks import pair_embeddings

LOSSES = ("sigmoid", "softmax")


def outputs(n: int = 7, scale: float = 10.0, bias: float | None = -3.0, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images, texts = (F.normalize(torch.randn(n, 5, generator=generator), dim=1) for _ in range(2))
    found = {"image_features": images, "text_features": texts, "logit_scale": torch.tensor(scale)}
    return found if bias is None else found | {"logit_bias": torch.tensor([bias])}


def siglip(logits: torch.Tensor) -> torch.Tensor:
    """As the paper's Algorithm 1 has it."""
    n = len(logits)
    signs = 2 * torch.eye(n, dtype=logits.dtype) - 1
    return -F.logsigmoid(signs * logits).sum() / n


def clip(logits: torch.Tensor) -> torch.Tensor:
    labels = torch.arange(len(logits))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


@pytest.mark.parametrize(("loss", "expected"), [("sigmoid", siglip), ("softmax", clip)])
@pytest.mark.parametrize("rows", [2_048, 3])
def test_mean_of_the_losses_is_the_batch_loss(monkeypatch, loss, expected, rows):
    monkeypatch.setattr(pair_embeddings, "_ROWS", rows)
    given = outputs()
    for tensor in given.values():
        tensor.requires_grad_()
    losses = Pairs(loss=loss).losses(given, Batch(fields={}, labels=torch.zeros(7)))
    logits = given["logit_scale"] * given["image_features"] @ given["text_features"].T + given["logit_bias"]
    assert losses.shape == (7,)
    assert losses.mean().item() == pytest.approx(expected(logits).item(), rel=1e-5)
    found = torch.autograd.grad(losses.mean(), [given["image_features"], given["logit_scale"]])
    known = torch.autograd.grad(expected(logits), [given["image_features"], given["logit_scale"]])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(found, known, strict=True))


def test_sigmoid_losses_are_sums_of_the_loss_matrix():
    pairs = PairEmbeddings.of(outputs())
    matrix = pairs.loss_matrix()
    assert torch.allclose(pairs.losses("sigmoid"), (matrix.sum(0) + matrix.sum(1)) / 2, atol=1e-5)
    logits = pairs.logits()
    assert float(matrix[2, 2]) == pytest.approx(float(F.softplus(-logits[2, 2])))
    assert float(matrix[2, 3]) == pytest.approx(float(F.softplus(logits[2, 3])))


@pytest.mark.parametrize("loss", LOSSES)
def test_temperature_of_100_is_exact_under_autocast(loss):
    given = outputs(64, scale=100.0, bias=-10.0)
    batch = Batch(fields={}, labels=torch.zeros(64))
    with torch.autocast("cpu", torch.bfloat16):
        found = Pairs(loss=loss).losses({name: tensor.requires_grad_() for name, tensor in given.items()}, batch)
    found.mean().backward()
    assert found.dtype == torch.float32
    assert all(torch.isfinite(tensor.grad).all() for tensor in given.values())
    double = {name: tensor.detach().double() for name, tensor in given.items()}
    logits = double["logit_scale"] * double["image_features"] @ double["text_features"].T + double["logit_bias"]
    expected = siglip(logits) if loss == "sigmoid" else clip(logits)
    assert found.mean().item() == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_a_part_follow_from_stored_embeddings(loss):
    given = outputs(bias=None)
    reference = PairReference(loss=loss, scale=10.0)
    stored = PairEmbeddings.stored(given["image_features"].half(), given["text_features"].half(), reference)
    at = torch.tensor([5, 0, 3])
    part = PairEmbeddings.of(given | {name: given[name][at] for name in ("image_features", "text_features")})
    assert torch.allclose(stored.take(at).losses(loss), part.losses(loss), atol=1e-2)


def test_right_pairs_are_those_no_other_text_beats():
    image = torch.eye(4)
    text = torch.eye(4)[[0, 1, 3, 2]]
    found = {"image_features": image, "text_features": text, "logit_scale": torch.tensor(5.0)}
    assert Pairs().correct(found, Batch(fields={}, labels=torch.zeros(4))).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (torch.zeros(3, 4), "the model gave a Tensor in place of a mapping with image_features"),
        ({"logits": torch.zeros(3, 4)}, "gave a dict with logits in place"),
        (outputs(3) | {"text_features": torch.zeros(2, 5)}, r"text features of shape \(2, 5\)"),
    ],
)
def test_outputs_that_are_no_embeddings_are_refused(given, told):
    with pytest.raises(ConfigError, match=told):
        Pairs().losses(given, Batch(fields={}, labels=torch.zeros(3)))


def test_unknown_contrastive_loss_is_refused():
    with pytest.raises(ConfigError, match="contrastive loss 'siglip': choose sigmoid or softmax"):
        Pairs(loss="siglip")
