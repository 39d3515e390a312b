"""The model in training and its optimizer, in one process or in each of a job."""

import copy
from typing import Any

import torch
from torch import nn

from rhostream.loaders.stream import Exchange
from rhostream.pipeline.models import (
    average_in,
    clip_gradients,
    make_optimizer,
    place,
    random_state,
    restore_random_state,
    seed_random,
    usual_options,
)
from rhostream.pipeline.training.plan import TrainPlan
from rhostream.pipeline.training.untrained_models import untrained_model


class Learner:
    """A model that one process trains.

    Attributes:
        model: what is called in training.
        module: the same without what processes share gradients by.
    """

    def __init__(self, plan: TrainPlan, model: nn.Module, average: nn.Module | None) -> None:
        config = plan.config
        self.model = self.module = model
        self._average = average
        self._device, self._seed, self._clip_grad_norm = plan.device, config.seed, config.clip_grad_norm
        arguments = {**usual_options(config.optimizer, plan.task), **config.optimizer_arguments}
        self.optimizer = make_optimizer(config.optimizer, model, config.learning_rate, config.weight_decay, arguments)

    @property
    def outcome(self) -> nn.Module:
        """What is evaluated, and what the run ends with: the average of the weights, where one is kept."""
        return self.module if self._average is None else self._average

    def take_step(self, step: int) -> None:
        """The optimizer's step on the gradients that are there, which are let go; 1 is the first."""
        self._update()
        if self._average is not None:
            average_in(self._average, self.module, step)

    def _update(self) -> None:
        clip_gradients(self.model, self._clip_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def weights(self) -> dict[str, torch.Tensor]:
        """The state of the model in training, whole."""
        return self.module.state_dict()

    def weights_of_outcome(self) -> dict[str, torch.Tensor]:
        """The state of `outcome`, whole."""
        return self.outcome.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must carry; any number of processes can go on from it. Tensors may be shared out."""
        return {
            "model": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(self._device),
            **({} if self._average is None else {"average": self._average.state_dict()}),
        }

    def own_part(self, name: str) -> torch.Tensor | None:
        """A tensor that is shared out here as the one of this name in a checkpoint is to be; None where none is."""
        return None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["model"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        restore_random_state(state["random"], self._device)


def make_learner(plan: TrainPlan, exchange: Exchange) -> Learner:
    """The model that the plan asks for, on its device, as this process trains it."""
    config = plan.config
    seed_random(config.seed)
    model = place(untrained_model(plan), plan.device)
    average = copy.deepcopy(model) if config.average_weights else None
    if exchange.size == 1:
        return Learner(plan, model, average)
    from rhostream.pipeline.training.shared_learner import SharedLearner  # it imports FSDP, which takes a second

    return SharedLearner(plan, model, average, exchange)
