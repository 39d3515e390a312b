"""`auto`: the selection under which held-back loss falls fastest per second, found while training."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rhostream.errors import ConfigError
from rhostream.selection.plan import Selection
from rhostream.selection.policy import Policy

VALIDATION_SHARE: Final = 0.08  # of the time, at most, goes into validating
_SLICE: Final = 0.15  # of the time so far: how long a selection is tried before the next decision
_MEMORY: Final = 0.8  # of what was learned about a selection, kept from one decision to the next
_OPTIMISM: Final = 1.0  # in standard errors


def usual_arms(batch_size: int, super_batch_size: int) -> dict[str, Selection]:
    """What there is to choose from, each by the name under which it is reported.

    Uniform sampling, all that the IL table does not rule out, and RHO-LOSS at two ratios; each of the first two with
    batches of n_b and 4 n_b, as far as a super-batch goes.
    """
    arms = {}
    for size in (batch_size, min(4 * batch_size, super_batch_size)):
        for name, prefilter in (("filter", True), ("uniform", False)):
            arms[f"{name}@{size}"] = Selection(function="uniform", batch_size=size, share=1.0, prefilter=prefilter)
    for share in (batch_size / super_batch_size, min(1.0, 2.5 * batch_size / super_batch_size)):
        arms[f"rho_loss@{batch_size}/{share:.2g}"] = Selection(
            function="rho_loss", batch_size=batch_size, share=share, full=True
        )
    return arms


@dataclass
class _Arm:
    """What is known of a selection: weighted sums over its slices, older ones counting less."""

    weight: float = 0.0
    fall: float = 0.0
    slices: int = 0

    @property
    def mean(self) -> float:
        return self.fall / self.weight


class Auto(Policy):
    """Tries selections in turn and stays with the one that pays (a discounted UCB bandit: Garivier & Moulines, 2008).

    Training goes in slices, each a share of the time so far; after each, the loss V on held-back samples is measured.
    Learning curves are near power laws, V ∝ t^−e, so the exponent e = −Δ log V / Δ log t of a slice can be compared
    with those of slices long before, where plain losses per second could not. The next slice goes to the selection of
    the highest mean exponent, plus a bonus for those tried little or long ago. No time is lost in trials but what the
    slower selections lose: training always goes on from where it is.

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
        self._spread = _Spread()

    @property
    def current(self) -> str:
        """Name of the selection in force."""
        return self._current

    @property
    def note(self) -> str:
        known = sorted(((arm.mean, name) for name, arm in self._known.items() if arm.weight), reverse=True)
        others = ", ".join(f"{name} {mean:.2f}" for mean, name in known)
        return f"{self._current} (loss ∝ t^-e; e: {others})" if known else f"{self._current} (first)"

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
        for arm in self._known.values():
            arm.weight, arm.fall = arm.weight * _MEMORY, arm.fall * _MEMORY
        arm = self._known[self._current]
        if arm.weight:
            self._spread.add(fall / stretch - arm.mean, stretch)
        arm.weight, arm.fall, arm.slices = arm.weight + stretch, arm.fall + fall, arm.slices + 1

    def _best(self) -> str:
        untried = next((name for name, arm in self._known.items() if not arm.slices), None)
        if untried is not None:
            return untried
        return max(self.arms, key=lambda name: self._known[name].mean + self._bonus(self._known[name]))

    def _bonus(self, arm: _Arm) -> float:
        return _OPTIMISM * self._spread.error(arm.weight)

    def state_dict(self) -> dict[str, Any]:
        return {
            "known": {name: [arm.weight, arm.fall, arm.slices] for name, arm in self._known.items()},
            "current": self._current,
            "begun": None if self._begun is None else list(self._begun),
            "warm": self._warm,
            "until": self._until,
            "spread": [self._spread.squares, self._spread.count],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._known = {name: _Arm(*values) for name, values in state["known"].items()}
        self._current, self._warm, self._until = state["current"], state["warm"], state["until"]
        self._begun = None if state["begun"] is None else (state["begun"][0], state["begun"][1])
        self._spread = _Spread(*state["spread"])


@dataclass
class _Spread:
    """How far slices lie from the mean of their selection: the variance of a slice of stretch 1."""

    squares: float = 0.0
    count: int = 0

    def add(self, deviation: float, stretch: float) -> None:
        self.squares += deviation**2 * stretch
        self.count += 1

    def error(self, weight: float) -> float:
        """Standard error of a mean of this weight; nothing is known before there are two slices of one selection."""
        variance = self.squares / self.count if self.count else 0.0
        return math.sqrt(variance / weight)
