"""Policies: which selection is in force while training goes on."""

from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor

from rhostream.selection.importance import TauGate
from rhostream.selection.plan import Selection


class Policy(Protocol):
    """Says how the next super-batch is chosen from. One that learns nothing inherits all but `next`."""

    @property
    def note(self) -> str:
        """What it does at present and why, in a few words; empty where there is nothing to say."""
        return ""

    def next(self) -> Selection:
        """Asked before each super-batch."""
        ...

    def scored(self, score: Tensor) -> None:
        """Told the scores of each super-batch that was scored, float32 (n,)."""
        return None

    def stepped(self) -> None:
        """Told of each batch that is handed out to be trained on."""
        return None

    def learned(self, grad_norms: Tensor) -> None:
        """Told after each gradient step: the gradient norms (of `grad_norm`) of its batch, float32 (n_b,)."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must carry: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        return None


class Fixed(Policy):
    """The same selection at every step."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection

    def next(self) -> Selection:
        return self.selection


class GatedImportance(Policy):
    """Importance sampling while it pays, uniform sampling without a scoring pass while it does not.

    The gate takes in the gradient norms of the batches that are trained on while it is closed, and those of all scored
    candidates while it is open (Katharopoulos & Fleuret, 2018, Algorithm 1).

    Args:
        selection: with a function whose scores are gradient norms.
        super_batch_size: n_B.
    """

    def __init__(self, selection: Selection, super_batch_size: int) -> None:
        self._open = replace(selection, rule="importance")
        self._closed = Selection(function="uniform", batch_size=selection.batch_size, share=1.0)
        self.gate = TauGate(selection.batch_size, super_batch_size)

    @property
    def note(self) -> str:
        return f"τ {self.gate.tau:.2f} of {self.gate.threshold:.2f}"

    def next(self) -> Selection:
        return self._open if self.gate.open else self._closed

    def scored(self, score: Tensor) -> None:
        self.gate.update(score)

    def learned(self, grad_norms: Tensor) -> None:
        if not self.gate.open:
            self.gate.update(grad_norms)

    def state_dict(self) -> dict[str, Any]:
        return {"tau": self.gate.tau}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.gate.tau = state["tau"]
