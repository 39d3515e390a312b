"""Importance sampling, and when it pays (Katharopoulos & Fleuret, ICML 2018)."""

import torch
from torch import Tensor

from rhostream.errors import RhostreamError
from rhostream.selection.rules.rule import Chosen, Rule, unweighted


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
