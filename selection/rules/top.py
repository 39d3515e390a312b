"""The candidates with the highest scores."""

import torch
from torch import Tensor

from rhostream.selection.rules.rule import Chosen, Rule, unweighted


class Top(Rule):
    """The n_b highest scores, highest first (arXiv 2206.07137, Algorithm 1); ties go to the earlier candidate."""

    def choose(self, score: Tensor, labels: Tensor, at_most: int, generator: torch.Generator) -> Chosen:
        return unweighted(torch.argsort(score, descending=True, stable=True)[:at_most])
