"""The functions that read dropout draws, and the rule of each function, against independent computations."""

import math

import pytest
import torch

from rhostream import ConfigError
from rhostream.selection import (
    Importance,
    Joint,
    ScoredCandidates,
    SelectiveBackprop,
    Top,
    register,
    selection_function,
    selection_functions,
)
from rhostream.selection.rules.gumbel import GumbelTop
from rhostream.selection.rules.weighted import Weighted
from rhostream.selection.scoring.functions import _FUNCTIONS

K, N, C = 10, 6, 4
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])
GENERATOR = torch.Generator().manual_seed(3)
DRAWS = 3 * torch.randn(K, N, C, generator=GENERATOR)
LOGITS = 2 * torch.randn(N, C, generator=GENERATOR)
LOSSES = torch.nn.functional.cross_entropy(LOGITS, LABELS, reduction="none")


def softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(z - max(row)) for z in row]
    return [e / math.fsum(exponentials) for e in exponentials]


def entropy(p: list[float]) -> float:
    return -math.fsum(q * math.log(q) for q in p if q > 0)


def of_each(number: int, draws: torch.Tensor = DRAWS) -> list[list[float]]:
    """The probabilities of one candidate in each draw."""
    return [softmax(row) for row in draws[:, number].tolist()]


def mean(rows: list[list[float]]) -> list[float]:
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def score(name: str, draws: torch.Tensor = DRAWS) -> list[float]:
    function = selection_function(name).score
    assert function is not None
    return function(ScoredCandidates(labels=LABELS, losses=LOSSES, logits=LOGITS, draws=draws)).tolist()


def test_entropy_is_that_of_the_mean_of_the_draws():
    assert score("entropy") == pytest.approx([entropy(mean(of_each(i))) for i in range(N)], abs=1e-6)


def test_conditional_entropy_is_the_mean_of_the_draws_entropies():
    expected = [math.fsum(entropy(p) for p in of_each(i)) / K for i in range(N)]
    assert score("conditional_entropy") == pytest.approx(expected, abs=1e-6)


def test_bald_is_their_difference():
    expected = [entropy(mean(of_each(i))) - math.fsum(entropy(p) for p in of_each(i)) / K for i in range(N)]
    assert score("bald") == pytest.approx(expected, abs=1e-6)
    assert min(expected) > 0.05


def test_loss_minus_conditional_entropy_uses_the_scoring_passs_loss():
    losses = [-math.log(softmax(row)[y]) for row, y in zip(LOGITS.tolist(), LABELS.tolist(), strict=True)]
    expected = [losses[i] - math.fsum(entropy(p) for p in of_each(i)) / K for i in range(N)]
    assert score("loss_minus_conditional_entropy") == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("low", [-1e4, -math.inf])
def test_classes_of_probability_zero_add_nothing(low):
    draws = torch.full((2, N, C), low)
    draws[:, :, 0] = 0.0  # certain of class 0 in one draw …
    draws[1, :, 0], draws[1, :, 1] = low, 0.0  # … and of class 1 in the other
    assert score("conditional_entropy", draws) == pytest.approx([0.0] * N)
    assert score("entropy", draws) == pytest.approx([math.log(2)] * N)
    assert score("bald", draws) == pytest.approx([math.log(2)] * N)


def test_bald_of_draws_that_agree_is_nought():
    same = (100 * LOGITS).expand(K, N, C)
    assert score("bald", same) == pytest.approx([0.0] * N, abs=1e-6)


def test_sampling_baselines_score_as_train_loss_and_grad_norm():
    assert score("selective_backprop") == score("train_loss")
    assert score("grad_norm_is") == score("grad_norm")


def test_a_known_loss_serves_only_functions_that_say_so():
    losses = torch.tensor([0.1, 2.0, 0.3, 4.0, 0.5, 6.0])
    known = ScoredCandidates(labels=LABELS, il=torch.ones(N), losses=losses)
    of_losses = (losses, losses - 1, (-torch.ones(N)).exp() * (1 - (-losses).exp()))
    for name in selection_functions():
        function = selection_function(name)
        if function.score is None or function.needs == {"il"}:
            continue
        if function.loss_suffices:
            assert any(torch.allclose(function.score(known), score) for score in of_losses)
        else:
            with pytest.raises(ConfigError, match="register it with needs="):
                function.score(known)


def test_each_function_names_its_rule_and_outside_ones_theirs():
    rules = {name: type(selection_function(name).rule()) for name in selection_functions()}
    assert rules.pop("grad_norm_is") is Importance
    assert rules.pop("selective_backprop") is SelectiveBackprop
    assert rules.pop("jest") is Joint
    assert rules.pop("drrho") is Weighted
    assert set(rules.values()) == {Top}
    register("mine", needs={"logits"}, rule=lambda: GumbelTop(0.5))(lambda scored: scored.loss)
    try:
        made = selection_function("mine").rule()
        assert isinstance(made, GumbelTop)
        assert made.temperature == 0.5
    finally:
        del _FUNCTIONS["mine"]
