"""`auto`: the selection under which held-back loss falls fastest per second, found while training."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rhostream.errors import ConfigError
from rhostream.selection.plan import Selection
from rhostream.selection.policy import Policy

VALIDATION_SHARE: Final = 0.08  # of the time, at most, goes into validating
_SLICE: Final = 0.25  # of the time so far: how long a selection is tried before the next decision
# In units of log t, in which a run of a thousand times the first slice is 7 long:
_MEMORY: Final = 2.0  # after which 1/e of what was learned about a selection counts
_PRIOR: Final = 1.0  # how much weighs that a selection is like the mean of all, which guards against noise
_SPREAD: Final = 1.0  # standard deviation of an exponent measured over 1, before anything is known of it
_OPTIMISM: Final = 0.3  # in standard errors


def usual_arms(batch_size: int, super_batch_size: int) -> dict[str, Selection]:
    """What there is to choose from, each by the name under which it is reported, the least risky first.

    Uniform sampling, all that the IL table does not rule out, and RHO-LOSS at two ratios; each of the first two with
    batches of n_b and 4 n_b, as far as a super-batch goes.
    """
    shares = (min(1.0, 2.5 * batch_size / super_batch_size), batch_size / super_batch_size)
    rho = {f"rho_loss@{batch_size}/{share:.2g}": Selection(batch_size=batch_size, share=share) for share in shares}
    plain = {
        f"{name}@{size}": Selection(function="uniform", batch_size=size, share=1.0, prefilter=prefilter)
        for size in (min(4 * batch_size, super_batch_size), batch_size)
        for name, prefilter in (("filter", True), ("uniform", False))
    }
    first, *others = rho
    return {first: rho[first]} | plain | {name: rho[name] for name in others}


@dataclass
class _Arm:
    """What is known of a selection: the fall of log loss and the stretch of log time, older slices counting less."""

    stretch: float = 0.0
    fall: float = 0.0


class Auto(Policy):
    """Tries selections in turn and stays with the one that pays (a discounted UCB bandit: Garivier & Moulines, 2008).

    Training goes in slices, each a share of the time so far; after each, the loss V on held-back samples is measured.
    Learning curves are near power laws, V ∝ t^−e, so the exponent e = −Δ log V / Δ log t of a slice can be compared
    with those of slices long before, where plain losses per second could not. They are noisy: means are drawn towards
    that of all selections until there is more to go by. The next slice goes to the highest of them, plus a bonus for
    those tried little or long ago. No time is lost in trials but what the slower selections lose: training always goes
    on from where it is.

    Args:
        arms: the selections, by name; the first is trained with before the first decision.
        validate: measures the mean loss (nats) of the model on held-back samples.
        clock: seconds that training has cost so far, validating included; evaluation for the report is not.
    """

    def __init__(
        self, arms: Mapping[str, Selection], *, validate: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        if not arms:
            raise ConfigError("auto needs at least one selection to choose from")
        self.arms = dict(arms)
        self._validate, self._clock = validate, clock
        self._known = {name: _Arm() for name in self.arms}
        self._current = next(iter(self.arms))
        self._begun: tuple[float, float] | None = None  # seconds and log loss at the beginning of the slice
        self._warm = False
        self._until = 0.0  # seconds at which the slice ends
        self._squares, self._counted = 0.0, 0  # deviations of slices from the mean of their selection

    @property
    def current(self) -> str:
        """Name of the selection in force."""
        return self._current

    @property
    def note(self) -> str:
        tried = sorted(((self._mean(arm), name) for name, arm in self._known.items() if arm.stretch), reverse=True)
        others = ", ".join(f"{name} {mean:.2f}" for mean, name in tried)
        return f"{self._current} (loss ∝ t^-e; e: {others})" if tried else f"{self._current} (first)"

    def next(self) -> Selection:
        now = self._clock()
        if self._begun is None or now >= self._until:
            self._decide(now)
        return self.arms[self._current]

    def _decide(self, now: float) -> None:
        """End the slice, learn from it, and begin the next one."""
        log_loss = math.log(max(self._validate(), 1e-9))
        after = self._clock()
        if self._begun is not None and self._warm:
            self._learn(self._begun, (now, log_loss))
        # The first slice only warms up: from the untrained model on, everything learns.
        self._warm = self._begun is not None
        if self._warm:
            self._current = self._best()
        self._begun = (after, log_loss)
        self._until = after + max(_SLICE * after, (after - now) / VALIDATION_SHARE)

    def _learn(self, begun: tuple[float, float], ended: tuple[float, float]) -> None:
        stretch = math.log(ended[0] / begun[0])
        fall = begun[1] - ended[1]
        current = self._known[self._current]
        if current.stretch:
            deviation = fall / stretch - self._mean(current)
            self._squares, self._counted = self._squares + deviation**2 * stretch, self._counted + 1
        kept = math.exp(-stretch / _MEMORY)
        for arm in self._known.values():
            arm.stretch, arm.fall = arm.stretch * kept, arm.fall * kept
        current.stretch, current.fall = current.stretch + stretch, current.fall + fall

    def _mean(self, arm: _Arm) -> float:
        """The exponent of a selection, drawn towards that of all of them together."""
        stretch = sum(other.stretch for other in self._known.values())
        of_all = sum(other.fall for other in self._known.values()) / stretch
        return (arm.fall + _PRIOR * of_all) / (arm.stretch + _PRIOR)

    def _best(self) -> str:
        if not any(arm.stretch for arm in self._known.values()):
            return self._current
        # Per slice of stretch 1; the first guess counts as one.
        variance = (_SPREAD**2 + self._squares) / (1 + self._counted)

        def index(name: str) -> float:
            arm = self._known[name]
            return self._mean(arm) + _OPTIMISM * math.sqrt(variance / (arm.stretch + _PRIOR))

        return max(self.arms, key=index)

    def state_dict(self) -> dict[str, Any]:
        return {
            "known": {name: [arm.stretch, arm.fall] for name, arm in self._known.items()},
            "current": self._current,
            "begun": None if self._begun is None else list(self._begun),
            "warm": self._warm,
            "until": self._until,
            "deviations": [self._squares, self._counted],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._known = {name: _Arm(*values) for name, values in state["known"].items()}
        self._current, self._warm, self._until = state["current"], state["warm"], state["until"]
        self._begun = None if state["begun"] is None else (state["begun"][0], state["begun"][1])
        self._squares, self._counted = state["deviations"]
