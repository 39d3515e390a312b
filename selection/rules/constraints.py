"""Floors, around any rule: a least share for every class, a least score for every candidate."""

import math
from typing import Any

import torch
from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.selection.rules.importance import Importance
from rhostream.selection.rules.rule import Chosen, Rule


class ScoreFloor(Rule):
    """Only candidates with a score above the floor can be chosen; where too few are, fewer are.

    Late in training the reducible loss of nearly all candidates is negative, and the n_b highest are noise.

    Args:
        rule: chooses among those above the floor.
        above: the floor, in the unit of the score.

    Raises:
        ConfigError: a rule whose weights only hold for all candidates.
    """

    def __init__(self, rule: Rule, above: float = 0.0) -> None:
        _require_no_weights("score floor", rule)
        self.rule, self.above = rule, above

    @property
    def falls_short(self) -> bool:
        return True

    def choose(self, score: Tensor, labels: Tensor, at_most: int, generator: torch.Generator) -> Chosen:
        return _among(self.rule, score > self.above, score, labels, at_most, generator)

    def state_dict(self) -> dict[str, Any]:
        return self.rule.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rule.load_state_dict(state)


class ClassFloor(Rule):
    """No class gets less than `share` of what uniform sampling would give it (the concern of REDUCR, 2023).

    A class of which the super-batch holds m of n candidates has a floor of share · n_b · m / n samples. Fractions are
    rounded at random, up or down, so that each class gets its floor on average, a class with less than one sample a
    batch included, and the floors never ask for more than n_b. They are filled by the highest scores within the class
    (ties: the earlier candidate); the rule chooses the rest among the remaining candidates.

    Put a `ScoreFloor` around it and not inside, where the classes' floors would not heed it.

    `choose` raises ConfigError for multi-label targets, where a sample has no one class.

    Args:
        share: from 0 (no floors) to 1 (the classes keep their frequencies).

    Raises:
        ConfigError: a share outside [0, 1], or a rule whose weights only hold for all candidates.
    """

    def __init__(self, rule: Rule, share: float) -> None:
        if not 0 <= share <= 1:
            raise ConfigError(f"class floor {share}: give a share from 0 to 1")
        _require_no_weights("class floor", rule)
        self.rule, self.share = rule, share

    @property
    def falls_short(self) -> bool:
        return self.rule.falls_short

    def choose(self, score: Tensor, labels: Tensor, at_most: int, generator: torch.Generator) -> Chosen:
        if labels.dim() != 1:
            raise ConfigError(
                "a class floor shares out a batch by the one class of each sample: leave it out for multi-label targets"
            )
        device, score, labels = score.device, score.cpu(), labels.cpu()  # a loop over classes is no work for a GPU
        at_most = min(at_most, len(score))
        offset = float(torch.rand((), dtype=torch.float64, device="cpu", generator=generator))
        counts = torch.bincount(labels).tolist()
        position = torch.arange(len(score), device="cpu")
        floors, before, running = [], 0, 0
        for label, count in enumerate(counts):
            if count:
                # Systematic rounding: the running sum is rounded, so that the floors' sum is, too.
                running += count
                upto = math.floor(self.share * at_most * running / len(score) + offset)
                of_class = position[labels == label]
                best = torch.argsort(score[of_class], descending=True, stable=True)[: upto - before]
                floors.append(of_class[best])
                before = upto
        filled = torch.cat(floors) if floors else position[:0]
        rest = torch.ones(len(score), dtype=torch.bool, device="cpu")
        rest[filled] = False
        others = _among(self.rule, rest, score, labels, max(0, at_most - len(filled)), generator)
        positions = torch.cat([filled, others.positions])
        weights = torch.cat([torch.ones(len(filled), device="cpu"), others.weights])
        return Chosen(positions.to(device), weights.to(device))

    def state_dict(self) -> dict[str, Any]:
        return self.rule.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rule.load_state_dict(state)


class ClusterFloor(ClassFloor):
    """`ClassFloor` with clusters in the place of classes: no cluster gets less than its share.

    `choose` is given the clusters of the candidates as their labels, int64 (n,); streams that join clusters know them
    (`CandidateStream(…, clusters=…)`).
    """


def _require_no_weights(floor: str, rule: Rule) -> None:
    if isinstance(rule, Importance) or rule.takes_all:
        raise ConfigError(
            f"a {floor} with a rule that weights samples: its weights are right only where they follow from the scores "
            "of all candidates; use a rule without weights"
        )


def _among(
    rule: Rule, eligible: Tensor, score: Tensor, labels: Tensor, at_most: int, generator: torch.Generator
) -> Chosen:
    """What the rule chooses among the candidates that are eligible, bool (n,)."""
    positions = eligible.nonzero()[:, 0]
    chosen = rule.choose(score[positions], labels[positions], at_most, generator)
    return Chosen(positions[chosen.positions], chosen.weights)
