"""Selection while the model has something to learn from it that held-out data know, uniform sampling after that."""

import math
from dataclasses import replace
from typing import Any, Final

from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.selection.policies.policy import Policy
from rhostream.selection.policies.selection_config import SelectionConfig
from rhostream.selection.scoring import ScoredCandidates

_DECAY: Final = 0.95  # of the moving average
_FEWEST: Final = 40  # super-batches, before the average is believed


def require_comparison(selection: SelectionConfig) -> None:
    """Raises ConfigError for a function that does not read both losses: nobody could say when to hand over."""
    if not {"logits", "il"} <= selection.chosen_by.needs:
        raise ConfigError(
            f"handover with {selection.function!r}, which does not compare losses with irreducible losses: use "
            "learnable or rho_loss"
        )


class Handover(Policy):
    """Scores and selects until the model in training knows as much as the IL model; then samples without scoring.

    The measure is the reducible loss, on average over the candidates and the last super-batches. Where it is positive,
    held-out data know more of the labels than the model does, and candidates can be told apart by it. Where it is not,
    what scores best is mostly noise, and a scoring pass costs more than it tells. Candidates whose label the IL model
    finds less likely than a guess are left out: their losses tell how sure the model is, and not what it knows. There
    is no way back: without scoring nobody knows.

    Args:
        selection: of a function that reads losses and irreducible losses.
        guess: loss of a guess among the classes, nats: `Task.guess`.
        prefilter: what the stream's prefilter rules out stays ruled out after the handover.

    Raises:
        ConfigError: the function reads no losses, or no irreducible ones.
    """

    def __init__(self, selection: SelectionConfig, *, guess: float, prefilter: bool) -> None:
        require_comparison(selection)
        self._first = replace(selection, prefilter=prefilter)
        self._then = SelectionConfig(
            function="uniform", batch_size=selection.batch_size, share=1.0, prefilter=prefilter
        )
        self._guess = guess
        self._reducible, self._seen = math.inf, 0
        self.over = False

    @property
    def note(self) -> str:
        return "handed over" if self.over else f"reducible {self._reducible:.2f}"

    def next(self) -> SelectionConfig:
        return self._then if self.over else self._first

    def scored(self, scored: ScoredCandidates, score: Tensor) -> None:
        il = scored.require_il()
        learnable = il <= self._guess
        if not bool(learnable.any()):
            return
        now = float((scored.loss - il)[learnable].mean())
        self._reducible = now if self._seen == 0 else _DECAY * self._reducible + (1 - _DECAY) * now
        self._seen += 1
        self.over = self.over or (self._seen >= _FEWEST and self._reducible < 0)

    def state_dict(self) -> dict[str, Any]:
        return {"reducible": self._reducible, "seen": self._seen, "over": self.over}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._reducible, self._seen, self.over = state["reducible"], state["seen"], state["over"]
