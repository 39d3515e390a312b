"""Selection functions: how much each candidate of a super-batch is worth a gradient step. Higher is chosen.

Legend: n candidates, C classes, k draws of MC dropout; z logits, p = softmax(z), L cross-entropy; losses and entropies
in nats. Every function gives float32 (n,). Which of the scored are chosen is for `rhostream.selection.rules.rule`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.selection.rules import Importance, Joint, PairScores, Rule, SelectiveBackprop, Top, Weighted
from rhostream.selection.scoring.candidates import Need, ScoredCandidates

Score = Callable[[ScoredCandidates], Tensor]
#: What image-text pairs are worth together, of which a score of each follows.
Together = Callable[[ScoredCandidates], PairScores]


@dataclass(frozen=True, kw_only=True)
class SelectionFunction:
    """A named score, and how candidates are chosen by it.

    Attributes:
        score: None for uniform sampling, which takes the candidates as they come.
        needs: what of `ScoredCandidates` it reads.
        rule: makes the rule that chooses, one for each run.
        loss_suffices: of the model's outputs it reads the loss alone, so that a remembered loss serves.
        together: what pairs are worth together, for the rule `Joint`; None of functions that score each alone.
    """

    name: str
    score: Score | None
    needs: frozenset[Need]
    rule: Callable[[], Rule] = Top
    loss_suffices: bool = False
    together: Together | None = None

    @property
    def of_pairs(self) -> bool:
        """Does it score image-text pairs?"""
        return bool(self.needs & {"pairs", "reference"})

    @property
    def reads_logits(self) -> bool:
        """Does it read logits over classes that exclude each other?"""
        return "draws" in self.needs or ("logits" in self.needs and not self.loss_suffices)


_FUNCTIONS: dict[str, SelectionFunction] = {}


def register(
    name: str, *, needs: set[Need], rule: Callable[[], Rule] = Top, loss_suffices: bool = False
) -> Callable[[Score], Score]:
    """Make a selection function known by name, from inside or outside this package.

    Args:
        needs: "logits" where the score reads the model's outputs (a scoring pass is run), "draws" where it reads those
            of passes with dropout on (several are run), "il" where it reads irreducible losses.
        rule: how candidates are chosen by the score: the n_b highest, unless said otherwise.
        loss_suffices: of the model's outputs the score reads `ScoredCandidates.loss` alone.
    """

    def add(score: Score) -> Score:
        _FUNCTIONS[name] = SelectionFunction(
            name=name, score=score, needs=frozenset(needs), rule=rule, loss_suffices=loss_suffices
        )
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


@register("rho_loss", needs={"logits", "il"}, loss_suffices=True)
def rho_loss(scored: ScoredCandidates) -> Tensor:
    """Reducible holdout loss L[y|x; θ_t] − IL(x, y), nats (arXiv 2206.07137, equation 3)."""
    return scored.loss - scored.require_il()


@register("learnable", needs={"logits", "il"}, loss_suffices=True)
def learnable(scored: ScoredCandidates) -> Tensor:
    """exp(-IL) (1 - exp(-L)), in [0, 1]: what held-out data say of the label, times what the model has yet to learn.

    For cross-entropy p(y|x; D_ho) (1 - p(y|x; θ_t)). The reducible loss has no bound: the surer the model, the higher
    the loss of a wrong label, until it outranks everything. This score never exceeds the probability that the IL model
    gives to the label.
    """
    return (-scored.require_il()).exp() * (1 - (-scored.loss).exp())


@register("train_loss", needs={"logits"}, loss_suffices=True)
def train_loss(scored: ScoredCandidates) -> Tensor:
    """L[y|x; θ_t], nats: hard examples, mislabeled ones among them (Loshchilov & Hutter, 2015)."""
    return scored.loss


@register("selective_backprop", needs={"logits"}, rule=SelectiveBackprop, loss_suffices=True)
def selective_backprop(scored: ScoredCandidates) -> Tensor:
    """L[y|x; θ_t], nats: drawn by its rank among recent losses (Jiang et al., 2019), see `SelectiveBackprop`."""
    return scored.loss


def _register_together(name: str, needs: set[Need], together: Together, rule: Callable[[], Rule] = Top) -> None:
    _FUNCTIONS[name] = SelectionFunction(
        name=name,
        score=lambda scored: together(scored).alone(),
        needs=frozenset(needs),
        rule=rule,
        together=together,
    )


def _learnability(scored: ScoredCandidates) -> PairScores:
    """Of pairs, nats: the learner's loss less the reference's, in the batch of all candidates (arXiv 2312.05328)."""
    return scored.require_pairs().scores(learner=1, reference=-1)


def _easy_reference(scored: ScoredCandidates) -> PairScores:
    """Of pairs, nats: minus the reference's loss; needs no scoring pass (arXiv 2312.05328)."""
    return scored.require_pairs().scores(reference=-1)


def _hard_learner(scored: ScoredCandidates) -> PairScores:
    """Of pairs, nats: the learner's loss, that of wrong captions included; needs no reference (arXiv 2312.05328)."""
    return scored.require_pairs().scores(learner=1)


_register_together("learnability", {"pairs", "reference"}, _learnability)
_register_together("easy_reference", {"reference"}, _easy_reference)
_register_together("hard_learner", {"pairs"}, _hard_learner)
_register_together("jest", {"pairs", "reference"}, _learnability, rule=Joint)
_register_together("drrho", {"pairs", "reference"}, _learnability, rule=Weighted)


@register("irreducible_loss", needs={"il"})
def irreducible_loss(scored: ScoredCandidates) -> Tensor:
    """−IL(x, y), nats: skips noise and keeps redundancy (arXiv 2206.07137, section 4.2)."""
    return -scored.require_il()


@register("grad_norm", needs={"logits"})
def grad_norm(scored: ScoredCandidates) -> Tensor:
    """‖softmax(z) − onehot(y)‖₂, in [0, √2].

    Upper bound (up to a constant) of the gradient norm at the last layer (Katharopoulos & Fleuret, 2018, equation 20).
    """
    logits = scored.require_logits()
    residual = logits.softmax(dim=1) - F.one_hot(scored.labels, logits.shape[1])
    norm: Tensor = torch.linalg.vector_norm(residual, dim=1)
    return norm


@register("grad_norm_is", needs={"logits"}, rule=Importance)
def grad_norm_is(scored: ScoredCandidates) -> Tensor:
    """The score of `grad_norm`, which candidates are drawn in proportion to and weighted (see `Importance`)."""
    return grad_norm(scored)


@register("entropy", needs={"draws"})
def entropy(scored: ScoredCandidates) -> Tensor:
    """H[E p], nats, in [0, ln C]: the uncertainty of the mean of the draws; label-free."""
    return _entropy(_log_mean(_log_p(scored)))


@register("conditional_entropy", needs={"draws"})
def conditional_entropy(scored: ScoredCandidates) -> Tensor:
    """E H[p], nats, in [0, ln C]: the uncertainty within a draw, which more data do not remove; label-free."""
    return _entropy(_log_p(scored)).mean(dim=0)


@register("bald", needs={"draws"})
def bald(scored: ScoredCandidates) -> Tensor:
    """H[E p] − E H[p], nats, ≥ 0: what the label would tell of the weights; label-free (Houlsby et al., 2011).

    Computed as the mean over the draws of KL(p ‖ E p), which is the same.
    """
    log_p = _log_p(scored)
    return (log_p.exp() * (log_p - _log_mean(log_p))).sum(dim=2).mean(dim=0)


@register("loss_minus_conditional_entropy", needs={"logits", "draws"})
def loss_minus_conditional_entropy(scored: ScoredCandidates) -> Tensor:
    """L[y|x; θ_t] − E H[p], nats: the model's own uncertainty in the place of the IL
    (an active-learning baseline of arXiv 2206.07137)."""
    return scored.loss - conditional_entropy(scored)


def _log_p(scored: ScoredCandidates) -> Tensor:
    """Log-probabilities (k, n, C), finite: p log p is then 0 at p = 0."""
    log_p = scored.require_draws().log_softmax(dim=2)
    return log_p.clamp_min(torch.finfo(log_p.dtype).min)


def _log_mean(log_p: Tensor) -> Tensor:
    """Log of the mean probabilities, (n, C)."""
    log_mean = log_p.logsumexp(dim=0) - math.log(len(log_p))
    return log_mean.clamp_min(torch.finfo(log_p.dtype).min)


def _entropy(log_p: Tensor) -> Tensor:
    return -(log_p.exp() * log_p).sum(dim=-1)
