"""Irreducible losses of a model that goes on learning: the original selection function of arXiv 2206.07137."""

from typing import Any

import torch
from torch import Tensor, nn

from rhostream.errors import ConfigError
from rhostream.loaders.stream import SuperBatch
from rhostream.selection.companions.co_training import co_train
from rhostream.selection.scoring import Scorer, ScoringOptions, without_ddp
from rhostream.selection.selected_batch import SelectedBatch
from rhostream.selection.tasks import Classification, Task


class LiveIL:
    """IL(x, y) = L[y|x; D_ho, D_t]: the IL model is trained on, with the selected points (equation 2, before the
    approximation that the paper makes; its table 4 finds this one worse, so it is an ablation).

        live = LiveIL(il_model, learner=optimizer)
        for batch in OnlineSelector(model, live_il=live)(stream):   # a stream that joins no IL
            ...                                                     # the learner's step
            live.update(batch)

    A super-batch costs one more scoring pass, and a point that was selected in an earlier epoch is no longer held out.

    Args:
        model: trained on the holdout, on the learner's device; it scores in eval mode, as the IL table was made.
        learner: the learner's optimizer, whose rate (of its first group) is read at each step.
        share: of that rate; the paper's.
        weight_decay: of AdamW, its default.
        task: what goes into the model and what its loss is.
        seed: of the model's dropout, if it has any.

    Raises:
        ConfigError: a share that is not above 0.
    """

    def __init__(
        self,
        model: nn.Module,
        learner: torch.optim.Optimizer,
        *,
        share: float = 0.01,
        weight_decay: float = 0.01,
        task: Task = Classification(),
        seed: int = 0,
    ) -> None:
        if not share > 0:
            raise ConfigError(f"live IL at {share} of the learner's rate: give a share above 0, or use an IL table")
        self.model = model
        self._learner, self._share, self._seed = learner, share, seed
        self._scorer = Scorer(model, ScoringOptions(batchnorm="eval"), task=task)
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=self._rate, weight_decay=weight_decay)
        self._steps = 0

    @property
    def _rate(self) -> float:
        return self._share * float(self._learner.param_groups[0]["lr"])

    def il(self, super_batch: SuperBatch) -> Tensor:
        """float32 (n,), nats, of the candidates as the model is now."""
        device = next(self.model.parameters()).device
        return self._scorer.losses(super_batch.to(device).normalized())

    def update(self, batch: SelectedBatch) -> None:
        """Train the model on the batch that the learner has got, at its share of the learner's rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate
        random = f"live_il/{self._seed}/{self._steps}"
        co_train(self.model, self._optimizer, self._scorer.task, batch.scored_fields, batch, random=random)
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must carry: model, optimizer, number of steps."""
        return {
            "model": without_ddp(self.model).state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        without_ddp(self.model).load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._steps = state["steps"]
