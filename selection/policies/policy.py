"""Policies: which selection is in force while training goes on."""

from typing import Any, Protocol

from torch import Tensor

from rhostream.selection.policies.selection_config import SelectionConfig
from rhostream.selection.scoring import ScoredCandidates


class Policy(Protocol):
    """Says how the next super-batch is chosen from. One that learns nothing inherits all but `next`."""

    @property
    def note(self) -> str:
        """What it does at present and why, in a few words; empty where there is nothing to say."""
        return ""

    def next(self) -> SelectionConfig:
        """Asked before each super-batch."""
        ...

    def scored(self, scored: ScoredCandidates, score: Tensor) -> None:
        """Told of each super-batch that was scored: what is known of its candidates, and their scores, float32 (n,)."""
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

    def __init__(self, selection: SelectionConfig) -> None:
        self.selection = selection

    def next(self) -> SelectionConfig:
        return self.selection
