"""What a gradient step costs under each arm, from a few steps."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from rhostream.selection.policies.arms import Arm
from rhostream.selection.policies.selection_config import SelectionConfig

_ROUNDS: Final = 2  # the first pays for what is done once
_STEPS: Final = 2  # of a probe, where a super-batch has so many


class Probing:
    """A super-batch for each batch size, and one that is scored, in turn; the last round counts.

    The optimizer remembers them: Adam takes smaller steps for long after the large gradients of small batches or of
    hard samples. So small batches get two steps, of the candidates that are scored most are trained on, and candidates
    are ruled out only where that is expected to pay until the end.

    Args:
        arms: the selections, by name.
        super_batch_size: n_B.
    """

    def __init__(self, arms: Mapping[str, Arm], super_batch_size: int) -> None:
        self._super_batch_size = super_batch_size
        best = max(arms.values(), key=lambda arm: arm.expected(0.0)).selection
        self._sizes = sorted({arm.selection.batch_size for arm in arms.values()}, reverse=True)
        uniform = SelectionConfig(function="uniform", prefilter=best.prefilter)
        self._probes = [self._probe(uniform, size) for size in self._sizes]
        scored = next((arm.selection for arm in arms.values() if arm.candidates), None)
        if scored is not None:
            self._probes.append(self._probe(replace(scored, prefilter=best.prefilter), self._sizes[0]))
        self._found: list[tuple[float, int]] = []  # seconds and steps of each so far

    def _probe(self, like: SelectionConfig, size: int) -> SelectionConfig:
        steps = max(1, min(_STEPS, self._super_batch_size // size))
        return replace(like, batch_size=size, share=min(1.0, steps * size / self._super_batch_size))

    @property
    def finished(self) -> bool:
        return len(self._found) >= _ROUNDS * len(self._probes)

    @property
    def selection(self) -> SelectionConfig:
        """The probe in force."""
        return self._probes[len(self._found) % len(self._probes)]

    def record(self, seconds: float, steps: int) -> None:
        """End the probe in force, a super-batch that took so many seconds and steps."""
        self._found.append((seconds, steps))

    def cost(self, arm: Arm) -> float:
        """Seconds of a gradient step, once all is measured."""
        last = self._found[-len(self._probes) :]
        training = {size: seconds / steps for size, (seconds, steps) in zip(self._sizes, last, strict=False)}
        cost = training[arm.selection.batch_size]
        if arm.candidates:
            seconds, steps = last[-1]
            cost += arm.candidates * max(0.0, seconds - steps * training[self._sizes[0]]) / self._super_batch_size
        return max(cost, 1e-9)

    def state_dict(self) -> dict[str, Any]:
        return {"found": [list(each) for each in self._found]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._found = [(seconds, steps) for seconds, steps in state["found"]]
