"""Candidates drawn without replacement, in proportion to a softmax of their scores."""

import torch
from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.selection.rules.rule import Chosen, Rule, unweighted


class GumbelTop(Rule):
    """n_b drawn without replacement, one after the other in proportion to softmax(score / temperature).

    Adding Gumbel noise and taking the highest is the same (Kool et al., 2019). ActiveCLIP draws at temperature 1
    (arXiv 2312.05328). Chosen ones come in the order in which they were drawn.

    Args:
        temperature: towards 0 the rule becomes `Top`, with growing ones uniform sampling.

    Raises:
        ConfigError: a temperature that is not above 0.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        if not temperature > 0:
            raise ConfigError(f"temperature {temperature}: give a number above 0; the rule Top is that of 0")
        self.temperature = temperature

    def choose(self, score: Tensor, labels: Tensor, at_most: int, generator: torch.Generator) -> Chosen:
        noise = torch.empty(len(score), dtype=torch.float64, device="cpu").exponential_(generator=generator).log().neg()
        keys = score.cpu().double() / self.temperature + noise
        return unweighted(torch.argsort(keys, descending=True, stable=True)[:at_most].to(score.device))
