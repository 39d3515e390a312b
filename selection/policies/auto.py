"""`auto`: the selection under which validation loss falls fastest per second, found while training."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rhostream.errors import ConfigError
from rhostream.selection.policies.arms import Arm
from rhostream.selection.policies.policy import Policy
from rhostream.selection.policies.probing import Probing
from rhostream.selection.policies.selection_config import SelectionConfig

VALIDATION_SHARE: Final = 0.03  # of the time, at most, goes into validating
_SLICE: Final = 0.25  # of the time so far: how long a selection is tried before the next decision
_HIGHEST_LOSS: Final = 1e3  # nats, for one that is not finite
# In units of log t, in which a run of a thousand times the first slice is 7 long:
_MEMORY: Final = 2.0  # after which 1/e of what was learned about a selection counts
_NOISE: Final = 0.3  # standard deviation of an exponent measured over 1, before anything is known of it
_USUAL: Final = 0.5  # exponent, before anything is known
_TOGETHER: Final = 0.5  # standard deviation of that of all arms together
_ALONE: Final = 0.2  # standard deviation of each around what is expected of it beside the others
_OPTIMISM: Final = 1.0  # in standard errors
# Going over to another arm costs ten or twenty steps, until the optimizer has got used to other gradients. So it is
# asked what an arm gains when the learner has a third of its errors left.
_AHEAD: Final = 1 / 3
_OUTLIER: Final = 3.0  # standard deviations from what is believed, beyond which a measurement is not believed at once


class Validation(NamedTuple):
    """What the validation samples say of a model: mean loss (nats), and share of them that it predicts wrongly."""

    loss: float
    error: float


def _alike(one: SelectionConfig, other: SelectionConfig) -> float:
    """How much what is learnt of one selection tells of another, in [0, 1]."""
    same = (
        one.batch_size == other.batch_size,
        one.prefilter == other.prefilter,
        (one.function, one.share) == (other.function, other.share),
    )
    return sum(same) / len(same)


@dataclass
class _Known:
    """What is known of an arm.

    Attributes:
        cost: seconds a gradient step takes; 0 before the first slice.
        stretch, fall: log time spent on it and the fall of log loss meanwhile, older slices counting less.
    """

    cost: float = 0.0
    stretch: float = 0.0
    fall: float = 0.0


class Auto(Policy):
    """Tries selections and stays with the one that pays (a discounted UCB bandit: Garivier & Moulines, 2008).

    It begins with a few steps that tell what a step of each costs, about (`Probing`); with what a step is expected to
    gain, that makes an order in which to try them. Training then goes in slices, each a share of the time so far; after
    each, the loss V on validation samples is measured. Learning curves are near power laws, V ∝ t^−e, so the exponent e
    = −Δ log V / Δ log t of a slice can be compared with those of slices long before, where plain losses per second
    could not. They are noisy. So they are believed to be a Gaussian process (Srinivas et al., 2010) around what was
    expected of the arms: what one arm does tells of all in proportion, and of those that share its batch size, its
    filter or its choice beyond that. The next slice goes to the highest, plus a bonus for those little known. Training
    always goes on from where it is, so that trials lose no more than what the slower selections lose.

    Args:
        arms: the selections, by name.
        super_batch_size: n_B.
        validate: measures the model in training on them. The loss is best taken at the temperature that makes it
            lowest: a model that goes from wrong labels to right ones gains confidence at once, and has learnt nothing
            yet.
        clock: seconds that training has cost so far, validating included; evaluation for the report is not. On a CPU
            CPU-seconds serve better, as others may use it, too.
    """

    def __init__(
        self,
        arms: Mapping[str, Arm],
        *,
        super_batch_size: int,
        validate: Callable[[], Validation],
        clock: Callable[[], float],
    ) -> None:
        if not arms:
            raise ConfigError("auto needs at least one selection to choose from")
        self.arms = dict(arms)
        self._validate, self._clock = validate, clock
        self._error = 1.0  # by the last validation
        self._known = {name: _Known() for name in self.arms}
        selections = [arm.selection for arm in self.arms.values()]
        self._alike = np.array([[_alike(one, other) for other in selections] for one in selections])
        self._probing = Probing(self.arms, super_batch_size)
        self._current = next(iter(self.arms))
        self._origin: float | None = None  # what the clock said when training began
        self._steps = 0  # since the current arm or probe came into force
        self._since = 0.0  # seconds at which they began to be counted
        self._begun: tuple[float, float] | None = None  # seconds and log loss at the beginning of the slice
        self._until = 0.0  # seconds at which it ends
        self._squares, self._counted = 0.0, 0  # deviations of slices from what was believed of their arm
        self._outliers = 0  # slices in a row that were too far from it to be believed
        self._note = "measuring costs"

    @property
    def current(self) -> str:
        """Name of the selection in force, or of the first one while costs are being measured."""
        return self._current

    @property
    def note(self) -> str:
        return self._note if self._begun is None else f"{self._current} ({self._note})"

    def next(self) -> SelectionConfig:
        if self._origin is None:
            self._origin = self._clock()
            self._log_loss()  # the first pays for what is done once
            self._since = self._now()
        if self._begun is None and self._steps:
            self._probed()
        elif self._begun is not None and self._now() >= self._until:
            self._decide()
        return self._probing.selection if self._begun is None else self.arms[self._current].selection

    def stepped(self) -> None:
        self._steps += 1

    def _now(self) -> float:
        assert self._origin is not None
        return self._clock() - self._origin

    def _probed(self) -> None:
        """End a probe, and begin the next one or the first slice."""
        now = self._now()
        self._probing.record(now - self._since, self._steps)
        if self._probing.finished:
            for name, arm in self.arms.items():
                self._known[name].cost = self._probing.cost(arm)
            self._begin_slice(now, self._log_loss())
        self._steps, self._since = 0, self._now()

    def _decide(self) -> None:
        """End the slice, learn from it, and begin the next one."""
        assert self._begun is not None
        now, log_loss = self._now(), self._log_loss()
        arm = self._known[self._current]
        if self._steps:
            arm.cost = (now - self._since) / self._steps
        stretch = math.log(now / self._begun[0])
        at = list(self.arms).index(self._current)
        (mean, uncertainty) = (values[at] for values in self._exponents())
        exponent = (self._begun[1] - log_loss) / stretch
        far = _OUTLIER * math.sqrt(self._noise / stretch + uncertainty**2)
        kept = math.exp(-stretch / _MEMORY)
        for known in self._known.values():
            known.stretch, known.fall = known.stretch * kept, known.fall * kept
        # One validation gone wrong, a loss that is not finite for instance, ends one slice and begins another: neither
        # teaches anything. What stays so is true.
        if abs(exponent - mean) > far and self._outliers < 2:
            self._outliers += 1
        else:
            self._outliers = 0
            exponent = min(max(exponent, mean - far), mean + far)
            if arm.stretch:
                self._squares, self._counted = self._squares + (exponent - mean) ** 2 * stretch, self._counted + 1
            arm.stretch, arm.fall = arm.stretch + stretch, arm.fall + exponent * stretch
        self._begin_slice(now, log_loss)

    def _begin_slice(self, before: float, log_loss: float) -> None:
        """With the best arm.

        Args:
            before: seconds before the loss was measured.
        """
        now = self._now()
        mean, deviation = self._exponents()
        self._current = list(self.arms)[int(np.argmax(mean + _OPTIMISM * deviation))]
        self._steps, self._since, self._begun = 0, now, (now, log_loss)
        self._until = now + max(_SLICE * now, (now - before) / VALIDATION_SHARE)
        ranked = sorted(zip(mean, self.arms, strict=True), reverse=True)
        self._note = "loss ∝ t^-e; e: " + ", ".join(f"{name} {exponent:.2f}" for exponent, name in ranked)

    def _log_loss(self) -> float:
        """Of the validation samples; one that is not finite counts as the highest."""
        loss, self._error = self._validate()
        return math.log(max(loss, 1e-9) if math.isfinite(loss) else _HIGHEST_LOSS)

    def _expected(self) -> npt.NDArray[np.float64]:
        """Gain of a step for what it costs, (arms,), of mean 1."""
        values = np.array(
            [arm.expected(_AHEAD * self._error) / self._known[name].cost for name, arm in self.arms.items()]
        )
        expected: npt.NDArray[np.float64] = values / values.mean()
        return expected

    @property
    def _noise(self) -> float:
        """Variance of an exponent measured over a stretch of 1; the first guess counts as one measurement."""
        return (_NOISE**2 + self._squares) / (1 + self._counted)

    def _exponents(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean and standard deviation of what is believed of each arm's exponent, both (arms,)."""
        stretch = np.array([self._known[name].stretch for name in self.arms])
        fall = np.array([self._known[name].fall for name in self.arms])
        expected = self._expected()
        prior = _TOGETHER**2 * np.outer(expected, expected) + _ALONE**2 * self._alike
        tried = stretch > 0
        seen = prior[np.ix_(tried, tried)] + np.diag(self._noise / stretch[tried])
        weights = np.linalg.solve(seen, prior[tried]).T  # (arms, tried)
        mean = _USUAL * expected + weights @ (fall[tried] / stretch[tried] - _USUAL * expected[tried])
        variance = prior.diagonal() - (weights * prior[:, tried]).sum(axis=1)
        return mean, np.sqrt(np.maximum(variance, 0.0))

    def state_dict(self) -> dict[str, Any]:
        return {
            "known": {
                name: [float(known.cost), float(known.stretch), float(known.fall)]
                for name, known in self._known.items()
            },
            "current": self._current,
            "origin": self._origin,
            "error": float(self._error),
            "note": self._note,
            "steps": self._steps,
            "since": self._since,
            "probing": self._probing.state_dict(),
            "begun": None if self._begun is None else list(self._begun),
            "until": float(self._until),
            "deviations": [float(self._squares), self._counted, self._outliers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._known = {name: _Known(*values) for name, values in state["known"].items()}
        self._current, self._origin, self._note = state["current"], state["origin"], state["note"]
        self._error, self._steps, self._since = state["error"], state["steps"], state["since"]
        self._probing.load_state_dict(state["probing"])
        self._until = state["until"]
        self._begun = None if state["begun"] is None else (state["begun"][0], state["begun"][1])
        self._squares, self._counted, self._outliers = state["deviations"]
