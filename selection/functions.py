"""Selection functions: how much each candidate of a super-batch is worth a gradient step. Higher is chosen.

Legend: n candidates, C classes; losses in nats.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rhostream.errors import ConfigError

Need = Literal["il", "logits"]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What is known of the candidates of a super-batch when they are scored.

    Attributes:
        labels: int64 (n,).
        il: float32 (n,), irreducible loss; None where the stream joins no IL table.
        logits: float32 (n, C) of the model in training; None for functions that do not need them.
    """

    labels: Tensor
    il: Tensor | None = None
    logits: Tensor | None = None

    @property
    def loss(self) -> Tensor:
        """float32 (n,), cross-entropy of each candidate under the model in training."""
        return F.cross_entropy(self._logits(), self.labels, reduction="none")

    def _logits(self) -> Tensor:
        if self.logits is None:
            raise ConfigError("this selection function reads the model's outputs: register it with needs={'logits'}")
        return self.logits

    def _il(self) -> Tensor:
        if self.il is None:
            raise ConfigError("this selection function reads irreducible losses: give the stream an IL table (il=…)")
        return self.il


Score = Callable[[Scored], Tensor]


@dataclass(frozen=True, kw_only=True)
class SelectionFunction:
    """A named score. `score` is None for uniform sampling, which takes the candidates as they come."""

    name: str
    score: Score | None
    needs: frozenset[Need]


_FUNCTIONS: dict[str, SelectionFunction] = {}


def register(name: str, *, needs: set[Need]) -> Callable[[Score], Score]:
    """Make a selection function known by name, from inside or outside this package.

    Args:
        needs: "logits" where the score reads the model's outputs (a scoring pass is run), "il" where it reads
            irreducible losses.
    """

    def add(score: Score) -> Score:
        _FUNCTIONS[name] = SelectionFunction(name=name, score=score, needs=frozenset(needs))
        return score

    return add


def selection_function(name: str) -> SelectionFunction:
    """Raises ConfigError for an unknown name."""
    if name not in _FUNCTIONS:
        raise ConfigError(f"selection function {name!r}: known are {', '.join(sorted(_FUNCTIONS))}")
    return _FUNCTIONS[name]


def selection_functions() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted(_FUNCTIONS))


_FUNCTIONS["uniform"] = SelectionFunction(name="uniform", score=None, needs=frozenset())


@register("rho_loss", needs={"logits", "il"})
def rho_loss(scored: Scored) -> Tensor:
    """Reducible holdout loss L[y|x; θ_t] − IL(x, y), float32 (n,) (arXiv 2206.07137, equation 3)."""
    return scored.loss - scored._il()


@register("train_loss", needs={"logits"})
def train_loss(scored: Scored) -> Tensor:
    """L[y|x; θ_t], float32 (n,): hard examples, mislabelled ones among them (Loshchilov & Hutter, 2015)."""
    return scored.loss


@register("irreducible_loss", needs={"il"})
def irreducible_loss(scored: Scored) -> Tensor:
    """−IL(x, y), float32 (n,): skips noise and keeps redundancy (arXiv 2206.07137, section 4.2)."""
    return -scored._il()


@register("grad_norm", needs={"logits"})
def grad_norm(scored: Scored) -> Tensor:
    """‖softmax(z) − onehot(y)‖₂, float32 (n,), in [0, √2].

    Upper bound (up to a constant) of the gradient norm at the last layer (Katharopoulos & Fleuret, 2018, equation 20).
    """
    logits = scored._logits()
    residual = logits.softmax(dim=1) - F.one_hot(scored.labels, logits.shape[1])
    norm: Tensor = torch.linalg.vector_norm(residual, dim=1)
    return norm
