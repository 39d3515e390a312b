"""What a gradient step of a run costs on this machine, by taking a few."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Final

from rhostream.errors import RhostreamError
from rhostream.loaders.stream import Exchange
from rhostream.pipeline.models import Costs, resolve_precision
from rhostream.pipeline.training.batch_source import Selecting
from rhostream.pipeline.training.learner import make_learner
from rhostream.pipeline.training.loop import forward_backward
from rhostream.pipeline.training.plan import TrainPlan

_CHARGED: Final = ("load", "score", "train")
_WARM_UP: Final = 3  # steps, which pay for what is done once


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Means over the steps that were measured.

    Attributes:
        steps: how many those were.
        seconds, cpu_seconds: of a gradient step, by "load", "score" and "train".
    """

    steps: int
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]


def measure_step(plan: TrainPlan, *, seconds: float, fewest: int = 4) -> StepCost:
    """Begin the run on a model that is thrown away, and see what its steps cost. Nothing is written.

    Args:
        seconds: how long, once it has warmed up.
        fewest: steps, however long they take.

    Raises:
        ConfigError: the model cannot be built for this corpus.
        RhostreamError: the corpus has no candidate to train on.
    """
    device = plan.device
    costs, alone = Costs(device), Exchange(alone=True)
    learner = make_learner(plan, alone)
    model, optimizer = learner.model, learner.optimizer
    precision = resolve_precision(device, plan.config.precision)
    source = Selecting(plan, model, optimizer, costs=costs, ledger=None, exchange=alone, scorers=None)
    before, since = costs.metrics(), time.monotonic()
    model.train()
    for batch in source.batches(until=plan.steps + _WARM_UP + fewest):
        with costs.charge("train"):
            step = partial(forward_backward, model, batch, plan.task, device, precision)
            logits, _ = costs.flops("train", batch.shape, step)
            learner.take_step(source.step)
        with costs.charge("score"):
            source.learned(batch, logits)
        if source.step == _WARM_UP:
            before, since = costs.metrics(), time.monotonic()
        if source.step >= _WARM_UP + fewest and time.monotonic() - since >= seconds:
            break
    steps = source.step - _WARM_UP
    if steps < 1:
        raise RhostreamError(f"{plan.workspace.location} has too few candidates for {_WARM_UP + 1} steps to measure")
    after = costs.metrics()
    spent = {
        unit: {name: (after[f"{unit}_{name}"] - before[f"{unit}_{name}"]) / steps for name in _CHARGED}
        for unit in ("seconds", "cpu_seconds")
    }
    return StepCost(steps=steps, **spent)
