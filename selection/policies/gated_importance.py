"""Importance sampling while it pays, uniform sampling while it does not."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from rhostream.selection.policies.policy import Policy
from rhostream.selection.policies.selection_config import SelectionConfig
from rhostream.selection.policies.tau_gate import TauGate
from rhostream.selection.scoring import ScoredCandidates


class GatedImportance(Policy):
    """Importance sampling while it pays, uniform sampling without a scoring pass while it does not.

    The gate takes in the gradient norms of the batches that are trained on while it is closed, and those of all scored
    candidates while it is open (Katharopoulos & Fleuret, 2018, Algorithm 1).

    Args:
        selection: with a function whose scores are gradient norms.
        super_batch_size: n_B.
    """

    def __init__(self, selection: SelectionConfig, super_batch_size: int) -> None:
        self._open = replace(selection, rule="importance")
        self._closed = SelectionConfig(function="uniform", batch_size=selection.batch_size, share=1.0)
        self.gate = TauGate(selection.batch_size, super_batch_size)

    @property
    def note(self) -> str:
        return f"τ {self.gate.tau:.2f} of {self.gate.threshold:.2f}"

    def next(self) -> SelectionConfig:
        return self._open if self.gate.open else self._closed

    def scored(self, scored: ScoredCandidates, score: Tensor) -> None:
        self.gate.update(score)

    def learned(self, grad_norms: Tensor) -> None:
        if not self.gate.open:
            self.gate.update(grad_norms)

    def state_dict(self) -> dict[str, Any]:
        return {"tau": self.gate.tau}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.gate.tau = state["tau"]
