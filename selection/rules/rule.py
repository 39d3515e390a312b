"""Rules: which of the scored candidates a step is taken on, and with what weights.

Legend: n candidates of a super-batch (n_B when it is full), of which at most n_b are chosen. Every random number comes
from the caller's generator, which lies on the CPU, so that every device draws the same.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chosen:
    """m ≤ n_b candidates, on the device of the scores.

    Attributes:
        positions: int64 (m,), where they stand in the super-batch; a rule that draws with replacement may repeat one.
        weights: float32 (m,), of their losses in the mean over the batch.
    """

    positions: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.positions)


def unweighted(positions: Tensor) -> Chosen:
    """These candidates, each with weight 1."""
    return Chosen(positions, torch.ones(len(positions), device=positions.device))


class Rule(Protocol):
    """Chooses among scored candidates. Rules that remember nothing inherit the two methods of the state."""

    @property
    def falls_short(self) -> bool:
        """May it choose fewer than it is asked for, although there are as many?"""
        return False

    @property
    def takes_all(self) -> bool:
        """Does it leave no candidate out? Then n_b is n_B."""
        return False

    def choose(self, score: Tensor, labels: Tensor, at_most: int, generator: torch.Generator) -> Chosen:
        """Choose `at_most` candidates, or fewer where there are fewer or the rule says so.

        Args:
            score: float32 (n,), finite; higher is worth more.
            labels: of the candidates, as of `Batch`.
            at_most: n_b.
            generator: on the CPU.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must carry: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        return None
