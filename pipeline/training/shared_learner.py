"""A model that the processes of a job train together."""

from typing import Any

import torch
from torch import nn

from rhostream.loaders.stream import Exchange
from rhostream.pipeline.models import (
    average_buffers,
    in_parallel,
    is_sharded,
    load_model,
    load_optimizer,
    random_state,
    restore_random_state,
    seed_random,
    whole_state,
)
from rhostream.pipeline.training.learner import Learner
from rhostream.pipeline.training.plan import TrainPlan
from rhostream.selection.scoring import without_ddp


class SharedLearner(Learner):
    """Gradients are the mean over all processes; each has random numbers of its own.

    Raises:
        ConfigError: SyncBatchNorm on a CPU.
    """

    def __init__(self, plan: TrainPlan, model: nn.Module, average: nn.Module | None, exchange: Exchange) -> None:
        config = plan.config
        self._group = exchange.of_device()
        shared = in_parallel(
            model,
            plan.device,
            group=self._group,
            shard=config.shard_model,
            sync_batchnorm=config.sync_batchnorm,
        )
        if average is not None and config.shard_model:
            in_parallel(average, plan.device, group=self._group, shard=True, sync_batchnorm=False)
        super().__init__(plan, shared, average)
        self.module = without_ddp(shared)
        self._exchange = exchange
        self._seed_own(0)

    def _update(self) -> None:
        super()._update()
        average_buffers(self.module, self._group)

    def weights(self) -> dict[str, torch.Tensor]:
        whole: dict[str, torch.Tensor] = whole_state(self.module.state_dict())
        return whole

    def weights_of_outcome(self) -> dict[str, torch.Tensor]:
        whole: dict[str, torch.Tensor] = whole_state(self.outcome.state_dict())
        return whole

    def state_dict(self) -> dict[str, Any]:
        randoms = self._exchange.objects(random_state(self._device))
        return {**super().state_dict(), "random": randoms[0], "random_of_ranks": randoms}

    def own_part(self, name: str) -> torch.Tensor | None:
        kind, _, place = name.partition("/")
        if kind == "model":
            return dict(self.module.named_parameters()).get(place)
        if kind == "average" and self._average is not None:
            return dict(self._average.named_parameters()).get(place)
        parameters: list[torch.Tensor] = [
            parameter for group in self.optimizer.param_groups for parameter in group["params"]
        ]
        return parameters[int(place.split("/")[1])]  # of state/<number>/<what is kept of the parameter>

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not is_sharded(self.module):
            self.module.load_state_dict(state["model"])
            if self._average is not None:
                self._average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        else:
            load_model(self.module, state["model"])
            if self._average is not None:
                load_model(self._average, state["average"])
            load_optimizer(self.optimizer, state["optimizer"])
        randoms = state.get("random_of_ranks", [state["random"]])
        if len(randoms) == self._exchange.size:
            restore_random_state(randoms[self._exchange.rank], self._device)
        else:  # another number of ranks draws other numbers
            self._seed_own(state["step"])

    def _seed_own(self, step: int) -> None:
        seed_random(hash((self._seed, step, self._exchange.rank)) & (2**63 - 1))
