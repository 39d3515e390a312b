"""`auto`: the selection under which held-back loss falls fastest per second, found while training."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rhostream.errors import ConfigError
from rhostream.selection.plan import Selection
from rhostream.selection.policy import Policy

VALIDATION_SHARE: Final = 0.03  # of the time, at most, goes into validating
_SLICE: Final = 0.25  # of the time so far: how long a selection is tried before the next decision
_HIGHEST_LOSS: Final = 1e3  # nats, for one that is not finite
_FIRST_STEPS, _MEASURED_STEPS = 1, 2  # of each probe, before the first slice: to warm up, and to measure its cost
# In units of log t, in which a run of a thousand times the first slice is 7 long:
_MEMORY: Final = 2.0  # after which 1/e of what was learned about a selection counts
_NOISE: Final = 0.3  # standard deviation of an exponent measured over 1, before anything is known of it
_USUAL: Final = 0.5  # exponent, before anything is known
_TOGETHER: Final = 0.5  # standard deviation of that of all arms together
_ALONE: Final = 0.2  # standard deviation of each around what is expected of it beside the others
_OPTIMISM: Final = 1.0  # in standard errors
_OUTLIER: Final = 3.0  # standard deviations from what is believed, beyond which a measurement is not believed at once

# What a gradient step is expected to gain, before it has been seen. A batch of twice the size gains twice as much where
# gradient noise dominates, which it soon does, and as much where it does not (McCandlish et al., 2018). Taking the best
# tenth of the candidates halves the steps in arXiv 2206.07137, Table 2. Wrong labels teach nothing. What is ruled out
# though its label is right is among the hardest, and not learnt without it: errors that are left there cannot fall.
_BATCH_POWER: Final = 0.75
_CHOICE_POWER: Final = -0.3
_LEAST_LEFT: Final = 0.1  # of the errors, that can fall

# A forward pass of one sample, of its forward and backward pass (arXiv 2206.07137, section 3).
_FORWARD: Final = 1 / 3


class Validation(NamedTuple):
    """What the held-back samples say of a model: mean loss (nats), and share of them that it predicts wrongly."""

    loss: float
    error: float


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A selection to choose from.

    Attributes:
        gain: what a gradient step is expected to gain under it, relative to the other arms.
        hard: samples that it leaves out though their labels are right, per sample that it does not leave out.
        candidates: that are scored for a gradient step.
    """

    selection: Selection
    gain: float = 1.0
    hard: float = 0.0
    candidates: float = 0.0

    def __post_init__(self) -> None:
        if self.selection.scored and not self.candidates:
            raise ConfigError(f"arm {self.selection.label!r} scores: say how many candidates for a gradient step")

    def expected(self, error: float) -> float:
        """The gain, as far as it is not lost on what the arm leaves out.

        Args:
            error: share of the other samples that the learner predicts wrongly by now.
        """
        left = error / (error + self.hard) if self.hard else 1.0
        return self.gain * max(_LEAST_LEFT, left)


def usual_arms(batch_size: int, super_batch_size: int, ruled_out: float, wrong: float) -> dict[str, Arm]:
    """What there is to choose from, each by the name under which it is reported.

    Uniform sampling, of all or of what the IL table does not rule out, and RHO-LOSS at several ratios; with batches of
    n_b and 4 n_b, as far as a super-batch goes.

    Args:
        ruled_out: share of the candidates that the IL table rules out.
        wrong: share whose labels are wrong, about.
    """
    small, large = batch_size, min(4 * batch_size, super_batch_size)
    ratio = batch_size / super_batch_size
    mostly_right = wrong > ruled_out / 2  # the filter
    plain = [(small, False), (large, False), (large, True), *([(small, True)] if mostly_right else [])]
    scored = [(small, ratio), (small, 2.5 * ratio), (large, 4 * ratio)]
    choices = {
        f"{'filter' if filters else 'uniform'}@{size}": Selection(
            function="uniform", batch_size=size, share=1.0, prefilter=filters
        )
        for size, filters in plain
    } | {
        f"rho_loss@{size}/{share:.2g}": Selection(batch_size=size, share=share, prefilter=mostly_right)
        for size, share in scored
        if share < 1  # else nothing is chosen
    }

    def arm(selection: Selection) -> Arm:
        gain: float = (selection.batch_size / batch_size) ** _BATCH_POWER
        candidates, hard = 0.0, 0.0
        if selection.scored:
            gain *= selection.share**_CHOICE_POWER
            candidates = selection.batch_size / selection.share
        if selection.prefilter:
            hard = max(0.0, ruled_out - wrong) / (1 - ruled_out) if ruled_out < 1 else math.inf
        else:
            gain *= 1 - wrong
        return Arm(selection=selection, gain=gain, hard=hard, candidates=candidates)

    by_size = sorted(choices.items(), key=lambda item: item[1].batch_size)
    return {name: arm(selection) for name, selection in by_size}


def _probes(arms: Mapping[str, Arm]) -> dict[tuple[int, float], str]:
    """Names of arms whose costs tell those of all: of each batch size one that scores nothing, else all that score."""
    sizes = {arm.selection.batch_size for arm in arms.values() if not arm.candidates}
    probes: dict[tuple[int, float], str] = {}
    for name, arm in arms.items():
        if not arm.candidates or arm.selection.batch_size not in sizes:
            probes.setdefault((arm.selection.batch_size, arm.candidates), name)
    return probes


def _alike(one: Selection, other: Selection) -> float:
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
        cost: seconds a gradient step takes; 0 where it has not been measured.
        stretch, fall: log time spent on it and the fall of log loss meanwhile, older slices counting less.
    """

    cost: float = 0.0
    stretch: float = 0.0
    fall: float = 0.0


class Auto(Policy):
    """Tries selections and stays with the one that pays (a discounted UCB bandit: Garivier & Moulines, 2008).

    It begins with a few steps of some, which tell what a step of each costs, about; with what a step is expected to
    gain, that makes an order in which to try them. Training then goes in slices, each a share of the time so far; after
    each, the loss V on held-back samples is measured. Learning curves are near power laws, V ∝ t^−e, so the exponent e
    = −Δ log V / Δ log t of a slice can be compared with those of slices long before, where plain losses per second
    could not. They are noisy. So they are believed to be a Gaussian process (Srinivas et al., 2010) around what was
    expected of the arms: what one arm does tells of all in proportion, and of those that share its batch size, its
    filter or its choice beyond that. The next slice goes to the highest, plus a bonus for those little known. Training
    always goes on from where it is, so that trials lose no more than what the slower selections lose.

    Args:
        arms: the selections, by name; small batches first, or what one leaves over makes the next look cheap.
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
        self._probes = _probes(self.arms)
        self._current = list(self._probes.values())[-1]  # the first to be measured
        self._origin: float | None = None  # what the clock said when training began
        self._steps = 0  # of the current arm, since it came into force
        self._since = 0.0  # seconds at which they began to be counted
        self._trial = 0  # which of the arms' first turns it is
        self._begun: tuple[float, float] | None = None  # seconds and log loss at the beginning of the slice
        self._until = 0.0  # seconds at which it ends
        self._squares, self._counted = 0.0, 0  # deviations of slices from what was believed of their arm
        self._outliers = 0  # slices in a row that were too far from it to be believed
        self._note = "measuring costs"

    @property
    def current(self) -> str:
        """Name of the selection in force."""
        return self._current

    @property
    def note(self) -> str:
        return f"{self._current} ({self._note})"

    def next(self) -> Selection:
        if self._origin is None:
            self._origin = self._clock()
        if self._begun is None:
            self._measure_costs()
        elif self._now() >= self._until:
            self._decide()
        return self.arms[self._current].selection

    def stepped(self) -> None:
        self._steps += 1

    def _now(self) -> float:
        assert self._origin is not None
        return self._clock() - self._origin

    def _measure_costs(self) -> None:
        """Some arms in turn for a few steps. All but the first, whose super-batches make many, pay before for what is
        done once."""
        names = list(self._probes.values())
        warm_ups = len(names) - 1
        measured = self._trial >= warm_ups
        if self._steps < (_MEASURED_STEPS if measured else _FIRST_STEPS):
            return
        if measured:
            self._known[self._current].cost = (self._now() - self._since) / self._steps
        self._trial += 1
        if self._trial == max(1, warm_ups):
            self._log_loss()  # so does the first validation
        now = self._now()
        if self._trial == warm_ups + len(names):
            self._begin_slice(now, self._log_loss())
        else:
            self._current = [*reversed(names[1:]), *names][self._trial]
            self._steps, self._since = 0, now

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
        """Of the held-back samples; one that is not finite counts as the highest."""
        loss, self._error = self._validate()
        return math.log(max(loss, 1e-9) if math.isfinite(loss) else _HIGHEST_LOSS)

    def _expected(self) -> npt.NDArray[np.float64]:
        """Gain of a step for what it costs, (arms,), of mean 1."""
        values = np.array([arm.expected(self._error) / self._cost(name) for name, arm in self.arms.items()])
        expected: npt.NDArray[np.float64] = values / values.mean()
        return expected

    def _cost(self, name: str) -> float:
        """Seconds that a gradient step of an arm takes, as measured or as those of others tell."""
        known, arm = self._known[name].cost, self.arms[name]
        if not known:
            size = arm.selection.batch_size
            if alike := self._probes.get((size, arm.candidates)):
                known = self._known[alike].cost
            else:
                known = self._plain_cost(size) + arm.candidates * self._scoring_cost()
        return max(known, 1e-9)

    def _plain_cost(self, size: int) -> float:
        """That of an arm with batches of this size that scores nothing."""
        return self._known[self._probes[size, 0.0]].cost

    def _scoring_cost(self) -> float:
        """Seconds to score a candidate: as the arms that have been tried show, else the usual share of a training."""
        sizes = sorted(size for size, candidates in self._probes if not candidates)
        tried = [
            (self._known[name].cost - self._plain_cost(arm.selection.batch_size)) / arm.candidates
            for name, arm in self.arms.items()
            if arm.candidates and self._known[name].cost and arm.selection.batch_size in sizes
        ]
        if tried:
            return max(0.0, sum(tried) / len(tried))
        smallest, largest = sizes[0], sizes[-1]
        if smallest == largest:
            return _FORWARD * self._plain_cost(largest) / largest
        return max(0.0, _FORWARD * (self._plain_cost(largest) - self._plain_cost(smallest)) / (largest - smallest))

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
            "known": {name: [known.cost, known.stretch, known.fall] for name, known in self._known.items()},
            "current": self._current,
            "origin": self._origin,
            "error": self._error,
            "note": self._note,
            "steps": self._steps,
            "since": self._since,
            "trial": self._trial,
            "begun": None if self._begun is None else list(self._begun),
            "until": self._until,
            "deviations": [self._squares, self._counted, self._outliers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._known = {name: _Known(*values) for name, values in state["known"].items()}
        self._current, self._origin, self._note = state["current"], state["origin"], state["note"]
        self._error, self._steps, self._since = state["error"], state["steps"], state["since"]
        self._trial, self._until = state["trial"], state["until"]
        self._begun = None if state["begun"] is None else (state["begun"][0], state["begun"][1])
        self._squares, self._counted, self._outliers = state["deviations"]
