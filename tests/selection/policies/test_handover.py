"""Handing over: scoring as long as held-out data know more than the model, uniform sampling after that."""

import itertools

import pytest
import torch

from rhostream import ConfigError, Handover, SelectionConfig
from rhostream.selection.scoring.candidates import ScoredCandidates
from rhostream.selection.scoring.functions import selection_function

GUESS = 2.3


def policy(**settings: bool) -> Handover:
    return Handover(SelectionConfig(function="learnable", batch_size=8), guess=GUESS, **{"prefilter": True, **settings})


def seen(loss: float, il: float, wrong: int = 0) -> ScoredCandidates:
    """Ten candidates, some of which the IL model contradicts: the model's loss of those is very high."""
    losses, ils = torch.full((10,), loss), torch.full((10,), il)
    losses[:wrong], ils[:wrong] = 9.0, 3.0
    return ScoredCandidates(labels=torch.zeros(10, dtype=torch.int64), losses=losses, il=ils)


def steps_until_over(policy: Handover, candidates: ScoredCandidates, at_most: int = 500) -> int | None:
    for step in range(at_most):
        if policy.over:
            return step
        policy.scored(candidates, torch.zeros(10))
    return None


def test_scoring_goes_on_while_the_model_knows_less() -> None:
    assert steps_until_over(policy(), seen(loss=1.0, il=0.5)) is None


def test_uniform_sampling_follows_once_the_model_knows_as_much() -> None:
    tried = policy()
    assert tried.next().scores
    assert steps_until_over(tried, seen(loss=1.0, il=0.5), at_most=100) is None
    assert steps_until_over(tried, seen(loss=0.4, il=0.5)) is not None
    assert (tried.next().function, tried.next().share, tried.next().prefilter) == ("uniform", 1.0, True)
    for _ in range(100):
        tried.scored(seen(loss=1.0, il=0.5), torch.zeros(10))
    assert tried.over


def test_losses_of_contradicted_labels_do_not_hold_it_back() -> None:
    assert steps_until_over(policy(), seen(loss=0.4, il=0.5, wrong=4)) is not None


def test_the_first_super_batches_do_not_decide() -> None:
    assert steps_until_over(policy(), seen(loss=0.4, il=0.5)) == 40


def test_a_loaded_state_goes_on_as_if_never_stopped() -> None:
    whole, stopped = policy(prefilter=False), policy(prefilter=False)
    losses = [seen(loss=1.0 - step / 100, il=0.5) for step in range(120)]
    for candidates in losses[:50]:
        stopped.scored(candidates, torch.zeros(10))
    resumed = policy(prefilter=False)
    resumed.load_state_dict(stopped.state_dict())
    for candidates in losses:
        whole.scored(candidates, torch.zeros(10))
    for candidates in itertools.islice(losses, 50, None):
        resumed.scored(candidates, torch.zeros(10))
    assert resumed.state_dict() == whole.state_dict()


def test_a_function_without_irreducible_losses_is_refused() -> None:
    with pytest.raises(ConfigError, match="handover with 'train_loss'"):
        Handover(SelectionConfig(function="train_loss"), guess=GUESS, prefilter=False)


def test_learnable_is_bounded_by_what_held_out_data_say() -> None:
    scored = ScoredCandidates(
        labels=torch.zeros(4, dtype=torch.int64),
        losses=torch.tensor([0.0, 20.0, 20.0, 0.1]),
        il=torch.tensor([0.1, 0.1, 4.0, 4.0]),
    )
    score = selection_function("learnable").score
    assert score is not None
    found = score(scored)
    expected = torch.exp(-scored.require_il()) * (1 - torch.exp(-scored.loss))
    assert torch.allclose(found, expected)
    assert found.argsort(descending=True)[:2].tolist() == [1, 2]
    assert (found <= torch.exp(-scored.require_il())).all()
