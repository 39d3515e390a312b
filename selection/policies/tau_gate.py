"""When importance sampling pays (Katharopoulos & Fleuret, ICML 2018)."""

import math
from typing import Final

from torch import Tensor

from rhostream.errors import ConfigError

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
