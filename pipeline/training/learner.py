"""The model in training and its optimizer, in one process or in each of a job."""

from typing import Any

import torch
from torch import nn

from rhostream.loaders.stream import Exchange
from rhostream.pipeline.models import (
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
        module: the same without what processes share gradients by: what is evaluated, and saved.
    """

    def __init__(self, plan: TrainPlan, model: nn.Module) -> None:
        config = plan.config
        self.model = self.module = model
        self._device, self._seed, self._clip_grad_norm = plan.device, config.seed, config.clip_grad_norm
        arguments = {**usual_options(config.optimizer, plan.task), **config.optimizer_arguments}
        self.optimizer = make_optimizer(config.optimizer, model, config.learning_rate, config.weight_decay, arguments)

    def take_step(self) -> None:
        """The optimizer's step on the gradients that are there, which are let go."""
        clip_gradients(self.model, self._clip_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def weights(self) -> dict[str, torch.Tensor]:
        """The model's state, whole."""
        return self.module.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must carry; any number of processes can go on from it. Tensors may be shared out."""
        return {
            "model": self.weights(),
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(self._device),
        }

    def own_part(self, name: str) -> torch.Tensor | None:
        """A tensor that is shared out here as the one of this name in a checkpoint is to be; None where none is."""
        return None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        restore_random_state(state["random"], self._device)


def make_learner(plan: TrainPlan, exchange: Exchange) -> Learner:
    """The model that the plan asks for, on its device, as this process trains it."""
    config = plan.config
    seed_random(config.seed)
    model = place(untrained_model(plan), plan.device)
    if exchange.size == 1:
        return Learner(plan, model)
    from rhostream.pipeline.training.shared_learner import SharedLearner  # it imports FSDP, which takes a second

    return SharedLearner(plan, model, exchange)
