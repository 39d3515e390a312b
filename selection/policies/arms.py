"""Arms: the selections that `auto` chooses from, and what a step of each is expected to gain."""

import math
from dataclasses import dataclass
from typing import Final

from rhostream.errors import ConfigError
from rhostream.selection.policies.selection_config import SelectionConfig

# What a gradient step is expected to gain, before it has been seen. A batch of twice the size gains twice as much where
# gradient noise dominates, which it soon does, and as much where it does not (McCandlish et al., 2018). Taking the best
# tenth of the candidates halves the steps in arXiv 2206.07137, Table 2, and `learnable` takes hardly a wrong label. The
# more a filter has chosen already, the less is left to choose: of what one left that ruled out half, the best quarter
# took 0.6 to 1.7 of the steps, as many on average (benchmarks/unseen.py, 40% of the labels wrong). Wrong labels teach
# nothing, and cost steps to average out. What is ruled out though its label is right is among the hardest; a part of it
# is not learnt from the others, so that errors that are left there cannot fall.
_BATCH_POWER: Final = 0.75
_CHOICE_POWER: Final = -0.3
_FILTER_POWER: Final = 2.0
_RIGHT_POWER: Final = 1.5
_NOT_LEARNT: Final = 0.25
_LEAST_LEFT: Final = 0.1  # of the errors, that can fall


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A selection to choose from.

    Attributes:
        gain: what a gradient step is expected to gain under it, relative to the other arms.
        hard: samples that it leaves out though their labels are right, and which the others do not teach, per sample
            that it does not leave out.
        candidates: that are scored for a gradient step.
    """

    selection: SelectionConfig
    gain: float = 1.0
    hard: float = 0.0
    candidates: float = 0.0

    def __post_init__(self) -> None:
        if self.selection.scores and not self.candidates:
            raise ConfigError(f"arm {self.selection.label!r} scores: say how many candidates for a gradient step")

    def expected(self, error: float) -> float:
        """The gain, as far as it is not lost on what the arm leaves out.

        Args:
            error: share of the other samples that the learner predicts wrongly.
        """
        left = error / (error + self.hard) if self.hard else 1.0
        return self.gain * max(_LEAST_LEFT, left)


def usual_arms(
    batch_size: int, super_batch_size: int, ruled_out: float, wrong: float, *, filters: bool
) -> dict[str, Arm]:
    """What there is to choose from, each by the name under which it is reported.

    Uniform sampling, of all or of what the IL table does not rule out, and `learnable` at several ratios; with batches
    of n_b and 4 n_b, as far as a super-batch goes.

    Args:
        ruled_out: share of the candidates that the IL table rules out.
        wrong: share whose labels are wrong, about.
        filters: is that mostly what is ruled out? Otherwise only large batches are tried with the filter.
    """
    small, large = batch_size, min(4 * batch_size, super_batch_size)
    ratio = batch_size / super_batch_size
    plain = [(small, False), (large, False)]
    if ruled_out:
        plain += [(large, True), *([(small, True)] if filters else [])]
    scored = [(small, ratio), (small, 2.5 * ratio), (large, 4 * ratio)]
    choices = {
        f"{'filter' if filtered else 'uniform'}@{size}": SelectionConfig(
            function="uniform", batch_size=size, share=1.0, prefilter=filtered
        )
        for size, filtered in plain
    } | {
        f"learnable@{size}/{share:.2g}": SelectionConfig(
            function="learnable", batch_size=size, share=share, prefilter=filters
        )
        for size, share in scored
        if share < 1  # else nothing is chosen
    }

    def arm(selection: SelectionConfig) -> Arm:
        gain: float = (selection.batch_size / batch_size) ** _BATCH_POWER
        candidates, hard = 0.0, 0.0
        if selection.scores:
            left = 1 - ruled_out if selection.prefilter else 1.0
            gain *= selection.share ** (_CHOICE_POWER * left**_FILTER_POWER)
            candidates = selection.batch_size / selection.share
        if selection.prefilter:
            lost = _NOT_LEARNT * max(0.0, ruled_out - wrong)
            hard = lost / (1 - ruled_out) if ruled_out < 1 else math.inf
        if not selection.scores:
            kept = 1 - ruled_out if selection.prefilter else 1.0
            gain *= min(1.0, (1 - wrong) / kept) ** _RIGHT_POWER if kept else 0.0
        return Arm(selection=selection, gain=gain, hard=hard, candidates=candidates)

    by_size = sorted(choices.items(), key=lambda item: item[1].batch_size)
    return {name: arm(selection) for name, selection in by_size}
