"""One IL model from its first epoch to its best: a training that can be killed after any epoch and go on exactly."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import nn

from rhostream.errors import IrreducibleLossError
from rhostream.loaders.index import CorpusMetadata, Shard
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import Batch
from rhostream.pipeline.config import ILTrainConfig
from rhostream.pipeline.il.metadata import ILEpoch
from rhostream.pipeline.il.samples import TrainingSamples
from rhostream.pipeline.jobs import Progress, progress, require_same
from rhostream.pipeline.models import (
    Costs,
    EvaluationSet,
    autocast,
    build_model,
    choose_device,
    load_checkpoint,
    make_optimizer,
    place,
    random_state,
    repeatable_convolutions,
    restore_random_state,
    save_checkpoint,
    seed_random,
)
from rhostream.selection.tasks import task_of

REMEDY: Final = "ask for the same, give another --name, or replace it with --overwrite"
_STEPS_BETWEEN_CHECKS: Final = 50  # of the loss being finite: a check waits for the device


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """Which shards train a model and which choose its epoch; `fold` is -1 without folds."""

    fold: int
    train: tuple[Shard, ...]
    validate: tuple[Shard, ...]

    @property
    def label(self) -> str:
        return "" if self.fold < 0 else f"-fold{self.fold}"


class Fit:
    """The training of one model.

    Args:
        checkpoint: name of the file in the workspace that a killed training goes on from.
        identity: what must be equal for it to go on; JSON values.

    Raises:
        WorkspaceError: the checkpoint is of another training.
    """

    def __init__(
        self,
        workspace: Workspace,
        corpus: CorpusMetadata,
        config: ILTrainConfig,
        plan: FitPlan,
        *,
        checkpoint: str,
        identity: Mapping[str, Any],
    ) -> None:
        self.plan, self.config = plan, config
        self.epochs: list[ILEpoch] = []
        self.best: dict[str, torch.Tensor] = {}
        self._workspace, self._checkpoint, self._identity = workspace, checkpoint, dict(identity)
        self._device = choose_device(config.device)
        self.costs = Costs(self._device, children="il_train")
        spec = self._view = corpus.image_spec(config.image_size)
        model = build_model(config.model, len(corpus.classes), spec, seed=config.seed, weights=config.weights)
        self.model = place(model, self._device)
        self._optimizer = make_optimizer("AdamW", self.model, config.learning_rate, config.weight_decay)
        self._task = task_of(corpus)
        self.validation = EvaluationSet(
            workspace,
            plan.validate,
            spec,
            at_most=config.validation_size(sum(shard.rows for shard in plan.validate)),
            threads=config.threads,
        )
        self._samples = TrainingSamples(
            workspace,
            plan.train,
            spec,
            batch_size=config.batch_size,
            augmentation=config.augmentation,
            seed=config.seed,
            threads=config.threads,
        )

    @property
    def best_epoch(self) -> int:
        """The first epoch of the lowest validation loss."""
        return min(self.epochs, key=lambda epoch: epoch.validation_loss).epoch

    @property
    def finished(self) -> bool:
        if not self.epochs:
            return False
        last = self.epochs[-1].epoch
        patience = self.config.patience or self.config.epochs
        return last >= self.config.epochs or last - self.best_epoch >= patience

    def run(self) -> None:
        """Train to the end, from the checkpoint where there is one. torch's global generators stay as they were.

        Raises:
            IrreducibleLossError: the loss became NaN or infinite.
        """
        devices = [self._device] if self._device.type == "cuda" else []
        total = self.config.epochs * len(self._samples)
        with torch.random.fork_rng(devices), repeatable_convolutions():
            seed_random(self.config.seed)
            self._resume()
            done = max(0, len(self.epochs) - 1) * len(self._samples)
            with progress(f"il train{self.plan.label}", total, "steps", done) as reporter:
                while not self.finished:
                    with self.costs.charge("il_train"):
                        self._epoch(reporter)
                    self._save()
        self.validation.close()
        self._samples.close()

    def _epoch(self, reporter: Progress) -> None:
        number = len(self.epochs)
        loss, accuracy = self._train_epoch(number, reporter) if number else (None, None)
        validation = self.validation.evaluate(
            self.model, self._device, self.config.precision, costs=self.costs, cost="il_train"
        )
        self._require_finite(validation.loss, number)
        self.epochs.append(
            ILEpoch(
                epoch=number,
                train_loss=loss,
                train_accuracy=accuracy,
                validation_loss=validation.loss,
                validation_accuracy=validation.accuracy,
                validation_map=validation.mean_average_precision,
            )
        )
        if self.best_epoch == number:
            self.best = {name: value.cpu().contiguous().clone() for name, value in self.model.state_dict().items()}

    def _train_epoch(self, number: int, reporter: Progress) -> tuple[float, float]:
        """Mean loss and accuracy while training, over one pass."""
        losses = torch.zeros((), dtype=torch.float64, device=self._device)
        hits, seen = torch.zeros((), dtype=torch.int64, device=self._device), 0
        self.model.train()
        before = (number - 1) * len(self._samples)
        for step, (images, labels) in enumerate(self._samples.batches(number - 1)):
            if len(images) == 1 and seen:
                continue  # BatchNorm has no variance of a single sample
            for group in self._optimizer.param_groups:
                group["lr"] = self.config.rate_at((before + step) / (self.config.epochs * len(self._samples)))
            shape = ("il_train", *images.shape)
            loss, correct = self.costs.flops("il_train", shape, partial(self._step, self.model, images, labels))
            losses, hits, seen = losses + loss.double() * len(images), hits + correct, seen + len(images)
            if step % _STEPS_BETWEEN_CHECKS == 0:
                self._require_finite(float(losses), number)
            last = self.epochs[-1]
            quality = (
                f"{last.validation_accuracy:.1%} correct"
                if last.validation_map is None
                else f"mean average precision {last.validation_map:.3f}"
            )
            reporter.advance(note=f"validation loss {last.validation_loss:.3f}, {quality}")
        self._require_finite(float(losses), number)
        return float(losses) / seen, int(hits) / seen

    def _step(self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One gradient step: mean loss (nats) and number of correct predictions, both scalars on the device.

        Args:
            images: uint8 (n, C, H, W).
            labels: of a `Batch` of them.
        """
        images, labels = images.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)
        with autocast(self._device, self.config.precision):
            logits = model(self._view.normalize(images)).float()
        batch = Batch(fields={}, labels=labels)
        loss = self._task.losses(logits, batch).mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        correct = self._task.correct(logits, batch)
        assert correct is not None, "of logits the tasks of corpora tell"
        return loss.detach(), correct.sum()

    def _require_finite(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            raise IrreducibleLossError(
                f"IL model {self.config.resolved_name!r}: the loss became {loss} in epoch {epoch}, with learning rate "
                f"{self.config.learning_rate}: train again with --overwrite and a lower --learning-rate"
            )

    def _save(self) -> None:
        state = {
            "identity": self._identity,
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "model": self.model.state_dict(),
            "best": self.best,
            "optimizer": self._optimizer.state_dict(),
            "random": random_state(self._device),
            "costs": self.costs.state_dict(),
        }
        save_checkpoint(self._workspace, self._checkpoint, state)

    def _resume(self) -> None:
        state = load_checkpoint(self._workspace, self._checkpoint, "train again with --overwrite")
        if state is None:
            return
        path = self._workspace.path(self._checkpoint)
        require_same(f"{path} is of a training", state["identity"], self._identity, REMEDY)
        self.epochs = [ILEpoch(**epoch) for epoch in state["epochs"]]
        self.best = {name: value.cpu() for name, value in state["best"].items()}
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.costs.load_state_dict(state["costs"])
        restore_random_state(state["random"], self._device)
