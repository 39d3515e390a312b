"""Rules: exact where they are deterministic; where they draw, frequencies against exact probabilities."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from rhostream import ConfigError, RhostreamError
from rhostream.selection import (
    ClassFloor,
    GumbelTop,
    Importance,
    Rule,
    ScoreFloor,
    SelectiveBackprop,
    TauGate,
    Top,
)
from rhostream.selection.policies.gated_importance import GatedImportance
from rhostream.selection.policies.selection_config import SelectionConfig
from rhostream.selection.scoring.candidates import ScoredCandidates

SCORE = torch.tensor([1.0, 3.0, 2.0, 3.0, -1.0])
LABELS = torch.zeros(5, dtype=torch.int64)
DRAWS = 20_000
#: Half a per cent: more than six standard errors of a frequency over so many draws are at most 2.2%.
CLOSE = 0.022


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def positions(rule: Rule, score=SCORE, labels=None, at_most: int = 3, seed: int = 0) -> list[int]:
    labels = torch.zeros(len(score), dtype=torch.int64) if labels is None else labels
    return rule.choose(score, labels, at_most, generator(seed)).positions.tolist()


def test_top_takes_the_highest_and_breaks_ties_by_order():
    assert positions(Top()) == [1, 3, 2]
    assert positions(Top(), at_most=9) == [1, 3, 2, 0, 4]
    chosen = Top().choose(SCORE, LABELS, 2, generator())
    assert (chosen.weights.tolist(), chosen.weights.dtype) == ([1.0, 1.0], torch.float32)


@pytest.mark.slow
def test_gumbel_top_draws_pairs_as_sequentially_without_replacement():
    score, temperature = torch.tensor([0.0, 0.7, 1.4, -0.7]), 0.7
    weights = [math.exp(s / temperature) for s in score.tolist()]
    total = sum(weights)
    expected = {
        (i, j): weights[i] / total * weights[j] / (total - weights[i]) for i, j in itertools.permutations(range(4), 2)
    }
    assert sum(expected.values()) == pytest.approx(1)
    rule, drawing, labels = GumbelTop(temperature), generator(1), torch.zeros(4, dtype=torch.int64)
    found = Counter(tuple(rule.choose(score, labels, 2, drawing).positions.tolist()) for _ in range(DRAWS))
    assert set(found) <= set(expected)
    for pair, p in expected.items():
        assert found[pair] / DRAWS == pytest.approx(p, abs=6 * math.sqrt(p * (1 - p) / DRAWS))


def test_gumbel_top_near_temperature_nought_is_top():
    assert set(positions(GumbelTop(1e-6))) == {1, 2, 3}


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_above_nought_is_refused(temperature):
    with pytest.raises(ConfigError, match="temperature"):
        GumbelTop(temperature)


def test_importance_sampling_draws_in_proportion_and_weights_by_the_inverse():
    score = torch.tensor([1.0, 0.0, 3.0, 6.0])
    chosen = Importance().choose(score, LABELS[:4], DRAWS, generator(2))
    found = Counter(chosen.positions.tolist())
    for i, p in enumerate([0.1, 0.0, 0.3, 0.6]):
        assert found[i] / DRAWS == pytest.approx(p, abs=6 * math.sqrt(p * (1 - p) / DRAWS))
    by_hand = {0: 1 / (4 * 0.1), 2: 1 / (4 * 0.3), 3: 1 / (4 * 0.6)}
    assert chosen.weights.tolist() == pytest.approx([by_hand[i] for i in chosen.positions.tolist()])


@pytest.mark.slow
def test_weighted_gradients_of_drawn_samples_estimate_the_mean_without_bias():
    torch.manual_seed(0)
    n, n_b = 40, 8
    model, images, labels = nn.Linear(6, 3).double(), torch.randn(n, 6).double(), torch.randint(0, 3, (n,))
    gradients = []
    for image, label in zip(images, labels, strict=True):
        model.zero_grad()
        nn.functional.cross_entropy(model(image[None]), label[None]).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    each = torch.stack(gradients)  # (n, parameters)
    score, rule, drawing = each.norm(dim=1).float(), Importance(), generator(3)
    repeats = 4000
    estimates = []
    for _ in range(repeats):
        chosen = rule.choose(score, labels, n_b, drawing)
        estimates.append((chosen.weights.double()[:, None] * each[chosen.positions]).mean(dim=0))
    found = torch.stack(estimates)
    errors = (found.mean(dim=0) - each.mean(dim=0)).abs() / (found.std(dim=0) / math.sqrt(repeats))
    assert float(errors.max()) < 6  # standard errors
    biased = each[torch.multinomial(score / score.sum(), 4000, replacement=True)].mean(dim=0)
    assert float(((biased - each.mean(dim=0)).abs() / (found.std(dim=0) / math.sqrt(repeats))).max()) > 6


def test_importance_sampling_of_scores_that_are_all_nought_is_uniform():
    chosen = Importance().choose(torch.zeros(4), LABELS[:4], DRAWS, generator(4))
    assert chosen.weights.tolist() == [1.0] * DRAWS
    assert [count / DRAWS for count in Counter(chosen.positions.tolist()).values()] == pytest.approx(
        [0.25] * 4, abs=CLOSE
    )


def test_importance_sampling_refuses_negative_scores():
    with pytest.raises(RhostreamError, match="a score of -1 is no probability"):
        positions(Importance())


def tau_by_hand(norms: list[float]) -> float:
    g = np.array(norms) / np.sum(norms)
    u = np.full(len(g), 1 / len(g))
    return float((1 - np.sum((g - u) ** 2) / np.sum(g**2)) ** -0.5)


def test_the_gate_opens_when_tau_passes_the_scoring_cost():
    norms = [0.0] * 319 + [1.0]  # one sample has all of the gradient: τ = √320
    assert tau_by_hand(norms) == pytest.approx(math.sqrt(320))
    gate, expected = TauGate(32, 320), 0.0
    states = []
    for _ in range(5):
        gate.update(torch.tensor(norms))
        expected = 0.9 * expected + 0.1 * tau_by_hand(norms)
        assert gate.tau == pytest.approx(expected)
        states.append(gate.open)
    # 17.9 (1 − 0.9^t) passes 4.33 at the third step.
    assert states == [False, False, True, True, True]
    assert gate.threshold == pytest.approx((320 + 3 * 32) / (3 * 32))


def test_tau_of_mixed_norms_is_the_papers():
    gate, norms = TauGate(4, 8), [0.1, 0.7, 2.0, 0.3, 0.0, 0.0, 5.0, 0.2]
    gate.update(torch.tensor(norms))
    assert gate.tau == pytest.approx(0.1 * tau_by_hand(norms))


def test_the_gate_never_opens_on_equal_or_vanished_gradients():
    for norms in (torch.ones(64), torch.zeros(64)):
        gate = TauGate(32, 64)
        for _ in range(200):
            gate.update(norms)
        assert gate.tau == pytest.approx(1.0)
        assert not gate.open


def test_gated_importance_sampling_is_uniform_until_the_gate_opens():
    policy = GatedImportance(SelectionConfig(function="grad_norm_is"), super_batch_size=320)
    peaked = torch.tensor([0.0] * 31 + [1.0])  # of the batches that are trained on: τ = √32, above the gate's 4.33
    functions = []
    for _ in range(16):
        functions.append(policy.next().function)
        policy.learned(peaked)
    # √32 (1 − 0.9^t) passes 4.33 at the fourteenth step.
    assert functions == ["uniform"] * 14 + ["grad_norm_is"] * 2
    assert policy.next().rule == "importance"
    for _ in range(2):
        policy.learned(torch.ones(32))  # not taken in while it is open …
        policy.scored(ScoredCandidates(labels=torch.zeros(320)), torch.ones(320))  # … but this
    assert policy.next().function == "uniform"


@pytest.mark.slow
def test_selective_backprop_keeps_by_the_rank_among_recent_losses():
    score, beta = torch.tensor([0.1, 0.4, 0.2, 0.3]), 2.0
    rule, drawing, kept = SelectiveBackprop(beta, history=4), generator(6), Counter()
    for _ in range(DRAWS):
        kept.update(rule.choose(score, LABELS[:4], 4, drawing).positions.tolist())
    for i, rank in enumerate([1, 4, 2, 3]):
        p = (rank / 4) ** beta
        assert kept[i] / DRAWS == pytest.approx(p, abs=6 * math.sqrt(p * (1 - p) / DRAWS) + 1e-12)


def test_selective_backprop_remembers_a_bounded_number_of_losses():
    high, low, labels = torch.full((8,), 5.0), torch.full((8,), 1.0), torch.zeros(8, dtype=torch.int64)
    rule = SelectiveBackprop(1.0, history=8)
    assert positions(rule, high, at_most=8) == list(range(8))
    # The high losses are forgotten: the low ones are now as high as any.
    assert rule.choose(low, labels, 8, generator()).positions.tolist() == list(range(8))
    longer = SelectiveBackprop(1.0, history=16)
    positions(longer, high, at_most=8)
    assert len(longer.choose(low, labels, 8, generator(7)).positions) < 8


def test_selective_backprop_fills_at_most_a_batch_in_order():
    score = torch.rand(320, generator=generator(8))
    found = positions(SelectiveBackprop(1.0), score, at_most=32)
    assert len(found) == 32
    assert found == sorted(found)


def test_rules_with_a_memory_go_on_as_if_never_interrupted():
    score = [torch.rand(50, generator=generator(seed)) ** 8 for seed in range(20)]
    labels = torch.arange(50) % 3

    def made() -> list[Rule]:
        return [
            Importance(),
            ScoreFloor(GumbelTop(), 0.01),
            SelectiveBackprop(2.0, history=70),
            ClassFloor(SelectiveBackprop(2.0, history=70), 0.5),
        ]

    for whole, first, second in zip(made(), made(), made(), strict=True):
        drawing = generator(9)
        expected = [whole.choose(s, labels, 10, drawing).positions.tolist() for s in score]
        drawing = generator(9)
        found = [first.choose(s, labels, 10, drawing).positions.tolist() for s in score[:10]]
        second.load_state_dict(first.state_dict())
        found += [second.choose(s, labels, 10, drawing).positions.tolist() for s in score[10:]]
        assert found == expected


def test_a_score_floor_excludes_lower_candidates_even_from_short_batches():
    assert positions(ScoreFloor(Top(), 1.0)) == [1, 3, 2]
    assert positions(ScoreFloor(Top(), 2.0)) == [1, 3]
    assert positions(ScoreFloor(Top(), 3.0)) == []
    assert positions(ScoreFloor(GumbelTop(), 3.0)) == []


@pytest.mark.slow
def test_class_floors_are_met_on_average_and_nearly_each_time():
    labels = torch.tensor([0] * 200 + [1] * 90 + [2] * 7 + [4] * 3)  # class 3 has no candidate
    score = torch.where(labels == 0, 10.0, 0.0) + torch.arange(300) / 1000
    n_b, share, repeats = 32, 0.5, 4000
    rule, drawing, got = ClassFloor(Top(), share), generator(10), Counter()
    for _ in range(repeats):
        chosen = rule.choose(score, labels, n_b, drawing).positions
        assert len(set(chosen.tolist())) == n_b
        counts = Counter(labels[chosen].tolist())
        for label, members in Counter(labels.tolist()).items():
            assert counts[label] >= math.floor(share * n_b * members / 300)
        got.update(counts)
    for label in (1, 2, 4):  # the rule itself would take class 0 alone
        floor = share * n_b * int((labels == label).sum()) / 300
        spread = 6 * math.sqrt(0.25 / repeats)
        assert got[label] / repeats == pytest.approx(floor, abs=spread)


def test_class_floors_take_the_highest_scores_of_their_class():
    labels, score = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([9.0, 8.0, 7.0, 1.0, 3.0, 3.0])
    assert positions(ClassFloor(Top(), 1.0), score, labels, at_most=2) == [0, 4]
    assert positions(ClassFloor(Top(), 0.5), score, labels, at_most=4) == [0, 4, 1, 2]
    assert positions(ClassFloor(Top(), 0.0), score, labels, at_most=4) == positions(Top(), score, labels, at_most=4)


def test_many_rare_classes_never_ask_for_more_than_the_batch():
    labels, score = torch.arange(320) // 3, torch.rand(320, generator=generator(11))
    for seed in range(50):
        found = positions(ClassFloor(Top(), 1.0), score, labels, at_most=32, seed=seed)
        assert len(set(found)) == 32


def test_floors_over_weighted_draws_are_refused():
    with pytest.raises(ConfigError, match="a class floor with a rule that weights"):
        ClassFloor(Importance(), 0.5)
    with pytest.raises(ConfigError, match="a score floor with a rule that weights"):
        ScoreFloor(Importance(), 0.1)
