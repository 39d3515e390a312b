"""Selective backprop (Jiang et al., 2019)."""

from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.selection.rules.rule import Chosen, Rule, unweighted


class SelectiveBackprop(Rule):
    """Keeps each candidate with probability CDF(L)^beta, CDF being that of the recent losses, its own among them.

    Of a steady distribution of losses a share of 1 / (beta + 1) is kept, so beta = n_B / n_b − 1 fills a batch on
    average; the paper's 1 and 2 keep a half and a third. What is kept beyond n_b goes, the later candidates first;
    where fewer are kept the batch is short, for the caller to queue up.

    Args:
        beta: above 0; larger ones keep fewer, and of higher loss.
        history: number of losses that are remembered.

    Raises:
        ConfigError: beta or history is not above 0.
    """

    def __init__(self, beta: float = 1.0, *, history: int = 1024) -> None:
        for name, value in (("beta", beta), ("history", history)):
            if not value > 0:
                raise ConfigError(f"selective backprop {name} {value}: give a number above 0")
        self.beta = beta
        self._losses: deque[float] = deque(maxlen=history)

    @property
    def falls_short(self) -> bool:
        return True

    def choose(self, score: Tensor, labels: Tensor, at_most: int, generator: torch.Generator) -> Chosen:
        """`score` is the loss, nats; positions come in the order of the candidates."""
        losses = score.cpu().numpy()
        self._losses.extend(losses.tolist())
        recent = np.sort(np.asarray(self._losses, np.float32))
        share = np.searchsorted(recent, losses, side="right") / max(len(recent), 1)
        draws = torch.rand(len(losses), dtype=torch.float64, device="cpu", generator=generator).numpy()
        kept = draws < share**self.beta
        return unweighted(torch.from_numpy(np.flatnonzero(kept)[:at_most]).to(score.device))

    def state_dict(self) -> dict[str, Any]:
        return {"losses": torch.tensor(list(self._losses), dtype=torch.float32, device="cpu")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._losses = deque(state["losses"].tolist(), maxlen=self._losses.maxlen)
