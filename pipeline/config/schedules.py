"""Learning rates over a training, as shares of their peak."""

import math
from typing import Literal

from rhostream.errors import ConfigError

Schedule = Literal["cosine", "linear", "constant", "inverse_sqrt"]


def require_warmup(warmup: float, stage: str = "") -> None:
    """Raises ConfigError for a number of steps that is no whole one; `stage` begins the message."""
    if warmup > 1 and warmup != int(warmup):
        raise ConfigError(f"{stage}warmup {warmup}: give a whole number of steps, or a share below 1")


def rate_share(schedule: Schedule, warmup: float, step: int, steps: int) -> float:
    """In [0, 1], of the learning rate's peak, at step 1 … `steps`.

    Args:
        warmup: steps during which the rate rises in proportion; below 1 a share of `steps`.
        steps: the whole training; `constant` and `inverse_sqrt` do not depend on it, but for a warm-up that is a share.
    """
    rising = round(warmup * steps) if warmup < 1 else int(warmup)
    if step <= rising:
        return step / rising
    match schedule:
        case "constant":
            return 1.0
        case "inverse_sqrt":
            return math.sqrt(max(rising, 1) / step)
    progress = (step - 1 - rising) / (steps - rising)
    return 1 - progress if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
