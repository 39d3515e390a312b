"""Budget and learning rate of a run: functions of its settings alone, so that a checkpoint needs neither."""

import math

from rhostream.errors import ConfigError
from rhostream.pipeline.config import TrainConfig, rate_share
from rhostream.pipeline.training.selection_plan import plan_selection


def steps_of(config: TrainConfig, samples: int) -> int:
    """The budget in gradient steps, for a training split of this many samples: units are converted here alone.

    Raises:
        ConfigError: a unit of which it is not known beforehand how much a step takes.
    """
    if not (config.candidates or config.epochs):
        return config.steps
    selection = plan_selection(config)
    super_batch = min(selection.drawn_at_once, samples)
    an_epoch = samples if config.last == "keep" else samples - samples % super_batch
    drawn = config.candidates or config.epochs * an_epoch
    if selection.candidates_per_step is None:
        unit = "candidates" if config.candidates else "epochs"
        raise ConfigError(
            f"a budget in {unit} with select {config.select!r} as it is set: how many candidates a step takes is not "
            "known beforehand; give it in steps"
        )
    return math.ceil(drawn / min(selection.candidates_per_step, samples))


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """The rate of step 1 … `steps`."""
    return config.learning_rate * rate_share(config.schedule, config.warmup, step, steps)


def same_rates(config: TrainConfig, first: int, other: int) -> bool:
    """Does a run of `first` steps go through the rates with which a run of `other` steps begins?"""
    return all(
        learning_rate(config, step, first) == learning_rate(config, step, other)
        for step in range(1, min(first, other) + 1)
    )
