"""Importance sampling, and when it pays (Katharopoulos & Fleuret, ICML 2018)."""

import math
from typing import Final

import torch
from torch import Tensor

from rhostream.errors import ConfigError, RhostreamError
from rhostream.selection.choosing import Chosen, Rule, unweighted

_DECAY: Final = 0.9  # of the moving average, the paper's α_τ


class TauGate:
    """Open while importance sampling lowers the gradient's variance by more than its scoring costs.

    τ says how many times larger a uniform batch would have to be for the same variance, and is averaged
    over steps, from 0 on: the gate is closed at first. A step costs (n_B + 3 n_b) forward passes in place of
    3 n_b, a backward pass counted as two, so the gate is open where τ > (n_B + 3 n_b) / (3 n_b).
    """

    def __init__(self, n_b: int, n_B: int) -> None:  # noqa: N803 -- the paper's letters
        if not 0 < n_b <= n_B:
            raise ConfigError(f"batch size {n_b} of {n_B} candidates: give 1 or more, and at least as many candidates")
        self.threshold = (n_B + 3 * n_b) / (3 * n_b)
        self.tau = 0.0

    @property
    def open(self) -> bool:
        return self.tau > self.threshold

    def update(self, grad_norms: Tensor) -> None:
        """Take in the gradient norms of some candidates, float32 (n,), ≥ 0: those scored, or those trained on."""
        g = grad_norms.detach().cpu().double()
        total, squares = float(g.sum()), float(g.square().sum())
        # With g summing to 1 and u = 1/n: 1 − ‖g−u‖²/‖g‖² = 1/(n ‖g‖²). All zero is all equal: τ = 1.
        tau = math.sqrt(len(g) * squares) / total if total > 0 else 1.0
        self.tau = _DECAY * self.tau + (1 - _DECAY) * tau


class Importance(Rule):
    """n_b drawn with replacement, p_i = score_i / Σ score, weights 1 / (n p_i).

    The weighted mean of the drawn losses is then an unbiased estimate of the mean over all n candidates. Where all
    scores are 0 it draws uniformly. Whether it pays is for a `TauGate` to say.
    """

    def choose(self, score: Tensor, labels: Tensor, at_most: int, generator: torch.Generator) -> Chosen:
        """Raises RhostreamError where a score is negative."""
        if len(score) == 0 or at_most == 0:
            return unweighted(torch.empty(0, dtype=torch.int64, device=score.device))
        p = score.cpu().double()
        if float(p.min()) < 0:
            raise RhostreamError(
                f"importance sampling: a score of {float(p.min()):.3g} is no probability; use a selection function "
                "whose scores are 0 or more, such as grad_norm_is"
            )
        p = p / p.sum() if float(p.sum()) > 0 else torch.full_like(p, 1 / len(p))
        positions = torch.multinomial(p, at_most, replacement=True, generator=generator)
        weights = 1 / (len(p) * p[positions])
        return Chosen(positions.to(score.device), weights.float().to(score.device))
