"""The rule that leaves no candidate out, and weights them."""

import pytest
import torch
from helpers.pairs import Towers, pairs_super_batch

from rhostream.errors import ConfigError
from rhostream.loaders.reference import PairReference
from rhostream.selection import OnlineSelector, Pairs, SelectionConfig, Weighted

N = 12
REFERENCE = PairReference(loss="softmax", scale=12.0)


def weights_of(score: torch.Tensor, temperature: float) -> torch.Tensor:
    chosen = Weighted(temperature).choose(score, torch.zeros(len(score)), len(score), torch.Generator())
    assert chosen.positions.tolist() == list(range(len(score)))
    return chosen.weights


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_gradient_is_that_of_the_drrho_risk(temperature):
    losses = (3 * torch.rand(N, generator=torch.Generator().manual_seed(0))).double().requires_grad_()
    reference = torch.linspace(0, 2, N, dtype=torch.float64)
    excess = losses - reference
    risk = temperature * (excess / temperature).exp().mean().log()
    (expected,) = torch.autograd.grad(risk, losses)
    (found,) = torch.autograd.grad((losses * weights_of(excess.detach(), temperature)).mean(), losses)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def test_weights_stay_finite_and_end_in_even_ones():
    score = torch.tensor([-1e4, 0.0, 1e4])
    assert weights_of(score, 1.0).tolist() == [0, 0, 3]
    assert weights_of(score, 1e9).tolist() == pytest.approx([1, 1, 1], abs=1e-4)


def test_drrho_weights_all_pairs_by_what_there_is_to_learn():
    selector = OnlineSelector(Towers(bias=None), select="drrho", batch_size=N, task=Pairs(loss="softmax"))
    batch = selector.select(pairs_super_batch(N, reference=REFERENCE))
    plain = OnlineSelector(Towers(bias=None), select="learnability", batch_size=N, task=Pairs(loss="softmax"))
    chosen = plain.select(pairs_super_batch(N, reference=REFERENCE))
    assert batch is not None
    assert chosen is not None
    assert list(batch.keys) == list(pairs_super_batch(N).keys)
    assert float(batch.weights.mean()) == pytest.approx(1)
    heaviest = [batch.keys[at] for at in batch.weights.argsort(descending=True)]
    assert heaviest == list(chosen.keys)  # which come by their score
    with pytest.raises(ConfigError, match="batch_size 12 of 24 candidates with the rule weighted"):
        selector.select(pairs_super_batch(24, reference=REFERENCE))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 0.5}, "share 0.5 with the rule weighted"),
        ({"cluster_floor": 0.5}, "class floor with a rule that weights samples"),
        ({"score_floor": 0.0}, "score floor with a rule that weights samples"),
        ({"temperature": -1.0}, "temperature -1.0: give a number above 0"),
        ({"rule": "top", "temperature": 2.0}, "it is of the rules gumbel and weighted; choose one of these"),
    ],
)
def test_settings_that_would_leave_candidates_out_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        SelectionConfig(function="drrho", **settings)
