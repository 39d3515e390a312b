"""What is known of the candidates of a super-batch when a selection function scores them."""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from rhostream.errors import ConfigError

Need = Literal["il", "logits", "draws"]


@dataclass(frozen=True, kw_only=True)
class ScoredCandidates:
    """n candidates of C classes. What a function has not asked for may be None.

    Attributes:
        labels: int64 (n,).
        il: float32 (n,), irreducible loss in nats; None where the stream joins no IL table.
        logits: float32 (n, C) of the model in training.
        draws: float32 (k, n, C), logits of k passes with dropout on (`Scorer.draws`).
        known_loss: float32 (n,), nats, in place of the logits where the losses alone are known (`ScoreCache`).
    """

    labels: Tensor
    il: Tensor | None = None
    logits: Tensor | None = None
    draws: Tensor | None = None
    known_loss: Tensor | None = None

    @property
    def loss(self) -> Tensor:
        """float32 (n,), cross-entropy of each candidate under the model in training, nats."""
        if self.known_loss is not None:
            return self.known_loss
        return F.cross_entropy(self.require_logits(), self.labels, reduction="none")

    def require_logits(self) -> Tensor:
        """Raises ConfigError where there are none, as the other two do."""
        if self.logits is None:
            raise ConfigError("this selection function reads the model's outputs: register it with needs={'logits'}")
        return self.logits

    def require_il(self) -> Tensor:
        if self.il is None:
            raise ConfigError("this selection function reads irreducible losses: give the stream an IL table (il=…)")
        return self.il

    def require_draws(self) -> Tensor:
        if self.draws is None:
            raise ConfigError("this selection function reads MC-dropout draws: register it with needs={'draws'}")
        return self.draws
