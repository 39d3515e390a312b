"""Joint choice of pairs: conditionals against brute force, draws in proportion to them, safe at any temperature."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from rhostream import ConfigError
from rhostream.selection import Joint, PairEmbeddings, SelectionConfig
from rhostream.selection.rules import PairScores


def embeddings(n: int, seed: int, scale: float = 8.0, bias: float = -2.0) -> PairEmbeddings:
    random = torch.Generator().manual_seed(seed)
    images, texts = (F.normalize(torch.randn(n, 4, generator=random), dim=1) for _ in range(2))
    return PairEmbeddings(images=images, texts=texts, scale=torch.tensor(scale), bias=torch.tensor(bias))


def pair_scores(n: int, loss: str, scale: float = 8.0) -> PairScores:
    return PairScores(loss=loss, terms=((1.0, embeddings(n, 1, scale)), (-1.0, embeddings(n, 2, scale))))


def drawn(scores: PairScores, at_most: int, chunks: int = 0, seed: int = 0) -> list[int]:
    return Joint(chunks).choose_pairs(scores, at_most, torch.Generator().manual_seed(seed)).positions.tolist()


def value_of(scores: PairScores, batch: tuple[int, ...]) -> float:
    """Of a batch under the sigmoid loss: the sum of the losses of all its images with all its texts."""
    total = 0.0
    for weight, pairs in scores.terms:
        for i, j in itertools.product(batch, batch):
            logit = float(pairs.scale) * float(pairs.images[i].double() @ pairs.texts[j].double()) + float(pairs.bias)
            total += weight * float(F.softplus(torch.tensor(-logit if i == j else logit, dtype=torch.float64)))
    return total


@pytest.mark.parametrize("n", range(2, 9))
def test_sigmoid_conditionals_are_the_gains_of_the_batch(n):
    scores = pair_scores(n, "sigmoid")
    conditionals, batch = scores.conditionals(), ()
    for chunk in ((0,), (n - 1,)) if n < 5 else ((0, 3), (4,)):
        found = conditionals()
        for one in set(range(n)) - set(batch):
            gain = value_of(scores, (*batch, one)) - value_of(scores, batch)
            assert float(found[one]) == pytest.approx(gain, abs=1e-4)
        conditionals.add(torch.tensor(chunk))
        batch += chunk


@pytest.mark.parametrize("n", range(3, 9))
def test_softmax_conditionals_are_contrasts_with_the_batch(n):
    scores = pair_scores(n, "softmax")
    conditionals = scores.conditionals()
    expected = sum(-weight * pairs.logits().diagonal() for weight, pairs in scores.terms)
    assert torch.allclose(conditionals(), expected, atol=1e-5)
    for chunk in (torch.tensor([1]), torch.tensor([0, 2])):
        conditionals.add(chunk)
    batch = [0, 1, 2]
    for weight, pairs in scores.terms:
        logits = pairs.logits().double()
        expected = expected + weight * (logits[:, batch].logsumexp(1) + logits[batch].logsumexp(0)).float() / 2
    assert torch.allclose(conditionals(), expected, atol=1e-4)


@pytest.mark.slow
def test_pairs_are_drawn_in_proportion_to_conditionals():
    scores, draws = pair_scores(4, "sigmoid", scale=2.0), 3_000
    generator = torch.Generator().manual_seed(3)
    found = [tuple(Joint(2).choose_pairs(scores, 2, generator).positions.tolist()) for _ in range(draws)]
    for first, second in itertools.permutations(range(4), 2):
        conditionals = scores.conditionals()
        p = float(conditionals().softmax(0)[first])
        conditionals.add(torch.tensor([first]))
        after = conditionals()
        after[first] = -torch.inf
        p *= float(after.softmax(0)[second])
        assert found.count((first, second)) / draws == pytest.approx(p, abs=0.035)


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_temperature_of_100_overflows_nowhere(loss):
    scores = pair_scores(400, loss, scale=100.0)
    chosen = drawn(scores, 300)
    assert len(set(chosen)) == len(chosen) == 300
    conditionals = scores.conditionals()
    conditionals.add(torch.tensor(chosen))
    assert torch.isfinite(conditionals()).all()
    assert torch.isfinite(scores.alone()).all()


@pytest.mark.parametrize(("at_most", "chunks"), [(12, 5), (3, 16), (40, 2), (0, 4), (12, 1)])
def test_each_pair_is_chosen_once_whatever_the_chunks(at_most, chunks):
    chosen = drawn(pair_scores(20, "sigmoid"), at_most, chunks)
    assert len(set(chosen)) == len(chosen) == min(20, at_most)


def test_draws_follow_the_generator_alone():
    scores = pair_scores(40, "softmax")
    assert drawn(scores, 10) == drawn(scores, 10) != drawn(scores, 10, seed=1)


def test_joint_is_refused_where_pairs_are_scored_alone():
    with pytest.raises(ConfigError, match="rule joint with rho_loss, which scores each candidate alone"):
        SelectionConfig(function="rho_loss", rule="joint")
    with pytest.raises(ConfigError, match="rule joint with a floor"):
        SelectionConfig(function="jest", score_floor=0.0)
    with pytest.raises(ConfigError, match="rule importance with learnability"):
        SelectionConfig(function="learnability", rule="importance")
