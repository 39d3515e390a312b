"""All candidates, weighted by their scores, in place of leaving some out."""

import torch
from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.selection.rules.rule import Chosen, Rule


class Weighted(Rule):
    """Every candidate, in its order, with weight n · softmax(score / temperature); the weights' mean is 1.

    Of scores L − L_reference the gradient of the weighted mean loss is that of the DRRho risk with the KL divergence,
    temperature · ln mean exp((L − L_reference) / temperature) (arXiv 2505.06699): the worst mean, among weightings not
    far from even ones, of what there is to learn.

    Args:
        temperature: in the unit of the scores. With growing ones the rule becomes uniform sampling.

    Raises:
        ConfigError: a temperature that is not above 0.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        if not temperature > 0:
            raise ConfigError(f"temperature {temperature}: give a number above 0")
        self.temperature = temperature

    @property
    def takes_all(self) -> bool:
        return True

    def choose(self, score: Tensor, labels: Tensor, at_most: int, generator: torch.Generator) -> Chosen:
        weights = len(score) * torch.softmax(score.double() / self.temperature, 0)
        return Chosen(torch.arange(len(score), device=score.device), weights.float())
