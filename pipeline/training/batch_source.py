"""Where a run's batches come from: selected by the model in training, or replayed from an earlier run's ledger."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rhostream.errors import RhostreamError
from rhostream.loaders.stream import Exchange, Ranks
from rhostream.pipeline.models import Costs
from rhostream.pipeline.training.candidates import replay_stream, train_stream
from rhostream.pipeline.training.plan import TrainPlan
from rhostream.pipeline.training.selection_setup import SelectionSetup
from rhostream.selection.ledger import Ledger
from rhostream.selection.scoring import RemoteScorers, ScoreCache
from rhostream.selection.selected_batch import SelectedBatch
from rhostream.selection.selector import OnlineSelector


class BatchSource(Protocol):
    """Gives the batch of each step, and records it in the run's ledger."""

    @property
    def step(self) -> int:
        """Of the batch given last."""

    @property
    def note(self) -> str:
        """What it does at present and why; empty where there is nothing to say."""

    def batches(self, until: int) -> Iterator[SelectedBatch]:
        """The batches of the steps up to this one, charging what they cost."""

    def learned(self, batch: SelectedBatch, logits: Tensor) -> None:
        """Told of each gradient step; logits are those of its training pass, (n_b, classes)."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must carry: tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


class Selecting(BatchSource):
    """Lets the model in training choose from the stream's candidates.

    Args:
        model, optimizer: of the learner, on its device.
        ledger: None records nothing.
    """

    def __init__(
        self,
        plan: TrainPlan,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        costs: Costs,
        ledger: Ledger | None,
        exchange: Exchange,
        scorers: RemoteScorers | None,
    ) -> None:
        config = plan.config
        with costs.charge("load"):
            self._stream = train_stream(plan, Ranks(exchange.rank, exchange.size))
        self._setup = SelectionSetup(plan, model, optimizer, costs=costs, exchange=exchange)
        if scorers is not None:
            self._stream.reads = "nothing"
        self._selector = OnlineSelector(
            model,
            select=self._setup.policy,
            scorer=self._setup.scorer,
            live_il=self._setup.live_il,
            cache=ScoreCache(config.score_age) if config.score_age > 1 else None,
            ledger=ledger,
            meter=costs,
            score_ahead=config.score_ahead,
            staleness=config.staleness,
            scorers=scorers,
            seed=config.seed,
        )

    @property
    def step(self) -> int:
        return self._selector.step

    @property
    def note(self) -> str:
        return self._selector.policy.note

    def batches(self, until: int) -> Iterator[SelectedBatch]:
        selector = self._selector
        fruitless = 0  # passes in a row; of two, one was a whole epoch, whatever the first went on from
        while selector.step < until:
            before = selector.step, selector.waiting
            for batch in selector(self._stream):
                yield batch
                if selector.step >= until:
                    return
            fruitless = fruitless + 1 if (selector.step, selector.waiting) == before else 0
            if fruitless == 2:
                raise RhostreamError(
                    f"after step {selector.step}: an epoch had no candidate to train on: every sample was ruled out, "
                    "has a score at or below the floor, or is unreadable; lower --prefilter or --score-floor, or score "
                    "the shards again"
                )

    def learned(self, batch: SelectedBatch, logits: Tensor) -> None:
        self._setup.learned(batch, logits)

    def state_dict(self) -> dict[str, Any]:
        return self._selector.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._selector.load_state_dict(state, self._stream)


class Replaying(BatchSource):
    """Takes the batches of an earlier run, step by step."""

    def __init__(self, plan: TrainPlan, *, costs: Costs, ledger: Ledger) -> None:
        self._stream = replay_stream(plan)
        self._costs, self._ledger = costs, ledger
        self._step = 0

    @property
    def step(self) -> int:
        return self._step

    @property
    def note(self) -> str:
        return ""

    def batches(self, until: int) -> Iterator[SelectedBatch]:
        batches = iter(self._stream)
        while self._step < until:
            with self._costs.charge("load"):
                batch = next(batches)
            self._step += 1
            self._ledger.record_batch(self._step, batch.candidates, epoch=batch.epoch, selection="replay")
            yield batch

    def learned(self, batch: SelectedBatch, logits: Tensor) -> None:
        return None

    def state_dict(self) -> dict[str, Any]:
        self._ledger.save()
        return {"step": self._step, "stream": self._stream.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._stream.load_state_dict(state["stream"])
        self._step = state["step"]
        self._ledger.go_on_after(self._step)
