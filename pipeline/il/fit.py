"""One IL model from its first step to its best: a training that finds its own length, and goes on exactly when killed.

What is evaluated and kept is an average of the weights over the training, see `average_in`. Unless a schedule is asked
for, the learning rate stays constant, and no length has to be known beforehand. Evaluations come at steps that grow by
a quarter. The training ends where two in a row have not lowered the validation loss by `least_gain` (of pairs, what
recall@10 leaves to find), and at the first one that has raised it: a small gain alone may be chance.
"""

import copy
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import torch
from torch import nn

from rhostream.errors import IrreducibleLossError
from rhostream.loaders.decode import InputSpec
from rhostream.loaders.index import CorpusMetadata, Shard
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import Batch, Exchange, Ranks, model_inputs
from rhostream.pipeline.config import ILTrainConfig, Precision
from rhostream.pipeline.il.metadata import ILEvaluation
from rhostream.pipeline.il.samples import Share, TrainingSamples
from rhostream.pipeline.jobs import Progress, StopRequest, progress, require_agreement, require_same, stop_request
from rhostream.pipeline.models import (
    Costs,
    autocast,
    average_in,
    choose_device,
    clip_gradients,
    evaluation_set,
    has_bfloat16_tiles,
    load_checkpoint,
    make_optimizer,
    model_of_samples,
    place,
    random_state,
    repeatable_convolutions,
    restore_random_state,
    save_checkpoint,
    seed_random,
    usual_options,
)
from rhostream.selection.tasks import Pairs, task_of

#: Of what an untrained model does not find: with as much not found, a model of pairs has learnt nothing.
PAIRS_LEARNT: Final = 0.9
REMEDY: Final = "ask for the same, give another --name, or replace it with --overwrite"
_FIRST_EVALUATION: Final = 50  # steps, though after a pass over few samples, which are soon learnt by heart
_FEWEST_STEPS: Final = 8  # of a pass
_GROWTH: Final = 1.25  # of the steps from one evaluation to the next
# Before a model has learnt anything, its loss may not fall for a while.
_LEARNT: Final = 0.97  # of the loss of a guess by the classes' shares alone
_GIVEN_UP: Final = 2_000  # steps, after which it will not
_BY_HEART: Final = 0.99  # of the samples that it is trained on, when it has nothing left to learn from them
_STEPS_BETWEEN_CHECKS: Final = 50  # of the loss being finite: a check waits for the device
_RISEN: Final = 1.1  # of the lowest loss: no chance fluctuation, before anything is learnt either


def il_model(config: ILTrainConfig, corpus: CorpusMetadata) -> nn.Module:
    """The model to train, as the settings and the corpus's task ask for it, on the CPU.

    Raises:
        ConfigError: an unknown model, or weights that are not its own.
    """
    return model_of_samples(
        config.model,
        len(corpus.classes),
        config.input_spec(corpus),
        config.text_spec(corpus),
        loss=config.contrastive_loss,
        seed=config.seed,
        weights=config.weights,
    )


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """Which shards train a model and which choose its step; `fold` is -1 without folds."""

    fold: int
    train: Sequence[Shard]
    validate: Sequence[Shard]

    @property
    def label(self) -> str:
        return "" if self.fold < 0 else f"-fold{self.fold}"


@dataclass(kw_only=True)
class _Meanwhile:
    """What the steps since the last evaluation came to.

    Attributes:
        step: steps so far, of the whole training.
        losses: float64 scalar, summed over samples, nats.
        hits: int64 scalar, right predictions.
        seen: samples.
    """

    step: int
    losses: torch.Tensor
    hits: torch.Tensor
    seen: int


class Fit:
    """The training of one model.

    Args:
        checkpoint: name of the file in the workspace that a killed training goes on from.
        identity: what must be equal for it to go on; JSON values.
        exchange: of the processes that train the model together (DDP).

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
        exchange: Exchange,
    ) -> None:
        self.plan, self.config, self._exchange = plan, config, exchange
        self.evaluations: list[ILEvaluation] = []
        self.best: dict[str, torch.Tensor] = {}
        self._workspace, self._checkpoint, self._identity = workspace, checkpoint, dict(identity)
        self._device = choose_device(config.device)
        self.costs = Costs(self._device, children="il_train")
        spec = self._spec = config.input_spec(corpus)
        text_spec = config.text_spec(corpus)
        self._specs: dict[str, InputSpec] = {spec.field: spec, **({} if text_spec is None else {"text": text_spec})}
        self.model = self._trained = place(il_model(config, corpus), self._device)
        self._precision = _precision(self._device, self.model, config.precision)
        self._average = copy.deepcopy(self.model)
        self._average_buffers: Callable[[], None] | None = None
        if exchange.size > 1:
            from rhostream.pipeline.models import average_buffers, in_parallel  # they import FSDP, which takes a second

            group = exchange.of_device()
            self._trained = in_parallel(self.model, self._device, group=group, shard=False, sync_batchnorm=False)
            self._average_buffers = functools.partial(average_buffers, self.model, group)
        self._meanwhile = self._nothing_since(0)
        self._task = task_of(corpus, config.contrastive_loss)
        if isinstance(self._task, Pairs) and exchange.size > 1:
            self._task = replace(self._task, exchange=exchange)
        self._optimizer = make_optimizer(
            "AdamW", self.model, config.learning_rate, config.weight_decay, usual_options("AdamW", self._task)
        )
        self.validation = evaluation_set(
            workspace,
            plan.validate,
            spec,
            text_spec,
            task=self._task,
            at_most=config.validation_size(sum(shard.rows for shard in plan.validate)),
            threads=config.threads,
            exchange=exchange,
        )
        self._samples = TrainingSamples(
            workspace,
            plan.train,
            spec,
            text_spec,
            batch_size=config.batch_size,
            augmentation=config.augmentation,
            seed=config.seed,
            threads=config.threads,
            ranks=Ranks(exchange.rank, exchange.size),
        )

    @property
    def best_step(self) -> int:
        """The first step of the lowest validation loss, of pairs that of the highest recall."""
        return min(self.evaluations, key=self._to_fall).step

    def _to_fall(self, evaluation: ILEvaluation) -> float:
        """What the training is to lower; not the loss of wrong captions, of which a better model is the surer."""
        return 1 - evaluation.validation_accuracy if isinstance(self._task, Pairs) else evaluation.validation_loss

    @property
    def finished(self) -> bool:
        if len(self.evaluations) < 2:
            return False
        last = self.evaluations[-1]
        if last.step == self.config.steps or self.config.schedule == "linear":
            return last.step == self.config.steps
        *before, now = map(self._to_fall, self.evaluations)
        lowest = min(before)
        if now > _RISEN * lowest or not lowest:  # risen, or nothing left to lower
            return True
        nothing = PAIRS_LEARNT * before[0] if isinstance(self._task, Pairs) else _LEARNT * self.validation.guess
        by_heart = last.train_accuracy is not None and last.train_accuracy >= _BY_HEART
        learnt = min(lowest, now) < nothing or by_heart or last.step >= _GIVEN_UP
        return learnt and (now > lowest or (self._stalls(before) and self._stalls([*before, now])))

    def _stalls(self, falling: list[float]) -> bool:
        """Has the last evaluation not lowered what the training is to lower by as much as it should?"""
        return len(falling) > 1 and falling[-1] > (1 - self.config.least_gain) * min(falling[:-1])

    def run(self) -> None:
        """Train to the end, from the checkpoint where there is one. torch's global generators stay as they were.

        Raises:
            IrreducibleLossError: the loss became NaN or infinite.
            Interrupted: by SIGINT or SIGTERM, after one more step and its checkpoint.
        """
        devices = [self._device] if self._device.type == "cuda" else []
        first = self._exchange.rank == 0
        stopping = stop_request(f"IL model {self.config.resolved_name + self.plan.label!r}", tells=first)
        with torch.random.fork_rng(devices), repeatable_convolutions(), stopping as stop:
            self._seed_own(0)
            self._resume()
            step = self._meanwhile.step
            name = f"il train{self.plan.label}"
            with progress(name, self.config.steps or None, "steps", initial=step, shown=first) as reporter:
                if not self.evaluations:
                    self._evaluate(0, None, None)
                    self._save()
                stop.at(f"step {step}", self._exchange)
                batches = self._batches(step)
                while not self.finished:
                    until = self._next_evaluation(self.evaluations[-1].step)
                    with self.costs.charge("il_train"):
                        loss, accuracy = self._train(batches, until, reporter, stop)
                    self._meanwhile = self._nothing_since(until)
                    self._evaluate(until, loss, accuracy)
                    self._save()
                    if not self.finished:
                        stop.at(f"step {until}", self._exchange)
        self.validation.close()
        self._samples.close()

    def _next_evaluation(self, step: int) -> int:
        few = not isinstance(self._task, Pairs)  # of whose few samples each batch makes another question
        first = min(_FIRST_EVALUATION, max(_FEWEST_STEPS, len(self._samples))) if few else _FIRST_EVALUATION
        following = max(first, math.ceil(_GROWTH * step))
        return min(following, self.config.steps) if self.config.steps else following

    def _batches(self, step: int) -> Iterator[Share]:
        """The shares of the batches from this step on, without end."""
        epoch, first = divmod(step, len(self._samples))
        while True:
            yield from self._samples.batches(epoch, first)
            epoch, first = epoch + 1, 0

    def _evaluate(self, step: int, train_loss: float | None, train_accuracy: float | None) -> None:
        with self.costs.charge("il_train"):
            found = self.validation.evaluate(
                self._average, self._device, self.config.precision, costs=self.costs, cost="il_train"
            )
        self._require_finite(found.loss, step)
        self.evaluations.append(
            ILEvaluation(
                step=step,
                train_loss=train_loss,
                train_accuracy=train_accuracy,
                validation_loss=found.loss,
                validation_accuracy=found.accuracy,
                validation_map=found.mean_average_precision,
            )
        )
        if self.best_step == step:
            self.best = {name: value.cpu().contiguous().clone() for name, value in self._average.state_dict().items()}

    def _nothing_since(self, step: int) -> _Meanwhile:
        losses = torch.zeros((), dtype=torch.float64, device=self._device)
        return _Meanwhile(step=step, losses=losses, hits=torch.zeros_like(losses, dtype=torch.int64), seen=0)

    def _train(
        self,
        batches: Iterator[Share],
        until: int,
        reporter: Progress,
        stop: StopRequest,
    ) -> tuple[float, float]:
        """Take the steps up to `until`; mean loss (nats) and accuracy since the last evaluation."""
        so_far, saved = self._meanwhile, time.monotonic()
        self.model.train()
        note = self._note()
        for number in range(so_far.step, until):
            batch, of, weight, counts = next(batches)
            for group in self._optimizer.param_groups:
                group["lr"] = self.config.rate_at(number)
            # BatchNorm has no variance of a single sample, which an epoch may end in.
            if of > 1 or len(self._samples) == 1:
                inputs = self._inputs(batch)
                shape = ("il_train", *inputs.shape)
                step = functools.partial(self._step, self._trained, inputs, weight, counts)
                loss, correct = self.costs.flops("il_train", shape, step)
                if counts:
                    so_far.losses = so_far.losses + loss.double() * len(batch)
                    so_far.hits = so_far.hits + correct
                    so_far.seen += len(batch)
            if self._average_buffers is not None:
                self._average_buffers()
            average_in(self._average, self.model, number + 1)
            so_far.step = number + 1
            if number % _STEPS_BETWEEN_CHECKS == 0:
                self._require_finite(float(self._together().losses), so_far.step)
            reporter.advance(note=note)
            due = stop.agreed(self._exchange, 0 < self.config.checkpoint_minutes * 60 <= time.monotonic() - saved)
            if (due or stop.asked) and so_far.step < until:
                self._save()
                stop.at(f"step {so_far.step}", self._exchange)
                saved = time.monotonic()
        so_far = self._together()
        self._require_finite(float(so_far.losses), until)
        return float(so_far.losses) / max(so_far.seen, 1), int(so_far.hits) / max(so_far.seen, 1)

    def _together(self) -> _Meanwhile:
        """What the steps came to in all processes."""
        own = self._meanwhile
        if self._exchange.size == 1:
            return own
        losses, hits, seen = self._exchange.sums([float(own.losses), int(own.hits), own.seen])
        together = self._nothing_since(own.step)
        together.losses, together.hits, together.seen = together.losses + losses, together.hits + int(hits), int(seen)
        return together

    def _note(self) -> str:
        """What the last evaluation came to."""
        last = self.evaluations[-1]
        if last.validation_map is not None:
            return f"validation loss {last.validation_loss:.3f}, mean average precision {last.validation_map:.3f}"
        if isinstance(self._task, Pairs):
            return f"validation loss {last.validation_loss:.3f}, recall@10 {last.validation_accuracy:.1%}"
        return f"validation loss {last.validation_loss:.3f}, {last.validation_accuracy:.1%} correct"

    def _inputs(self, batch: Batch) -> Batch:
        """What the model takes, on its device."""
        batch = batch.to(self._device, non_blocking=True)
        return Batch(fields=model_inputs(batch.fields, self._specs), labels=batch.labels)

    def _step(self, model: nn.Module, batch: Batch, weight: float, counts: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """One gradient step: mean loss (nats) and number of correct predictions, both scalars on the device.

        Args:
            weight: of the loss that is gone down.
            counts: see `Share`; pairs that another process has, too, would stand in the batch twice.
        """
        with autocast(self._device, self._precision):
            outputs = self._task.outputs(model, batch)
        if isinstance(self._task, Pairs) and not counts:
            outputs = {name: each[:0] if each.dim() else each for name, each in outputs.items()}
        losses = self._task.losses(outputs, batch)
        loss = losses.mean() if len(losses) else losses.sum()
        self._optimizer.zero_grad()
        (loss * weight).backward()
        clip_gradients(model, self.config.clip_grad_norm)
        self._optimizer.step()
        correct = self._task.correct(outputs, batch)
        assert correct is not None, "of logits the tasks of corpora tell"
        return loss.detach(), correct.sum()

    def _require_finite(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise IrreducibleLossError(
                f"IL model {self.config.resolved_name!r}: the loss became {loss} by step {step}, with learning rate "
                f"{self.config.learning_rate}: train again with --overwrite and a lower --learning-rate"
            )

    def _save(self) -> None:
        randoms = self._exchange.objects(random_state(self._device))
        state = {
            "identity": self._identity,
            "evaluations": [asdict(each) for each in self.evaluations],
            "model": self.model.state_dict(),
            "average": self._average.state_dict(),
            "meanwhile": vars(self._together()),
            "best": self.best,
            "optimizer": self._optimizer.state_dict(),
            "random": randoms[0],
            "costs": self.costs.over_ranks(self._exchange).state_dict(),
            **({} if len(randoms) == 1 else {"random_of_ranks": randoms}),
        }
        if self._exchange.rank == 0:
            save_checkpoint(self._workspace, self._checkpoint, state)

    def _resume(self) -> None:
        state = load_checkpoint(self._workspace, self._checkpoint, "train again with --overwrite")
        found = None if state is None else state["meanwhile"]["step"]
        require_agreement(self._exchange, {"step": found}, "checkpoints")
        if state is None:
            return
        path = self._workspace.path(self._checkpoint)
        require_same(f"{path} is of a training", state["identity"], self._identity, REMEDY)
        self.evaluations = [ILEvaluation(**each) for each in state["evaluations"]]
        self.best = {name: value.cpu() for name, value in state["best"].items()}
        self.model.load_state_dict(state["model"])
        self._average.load_state_dict(state["average"])
        first = self._exchange.rank == 0  # goes on with what all have found and spent
        so_far = _Meanwhile(**state["meanwhile"])
        so_far.losses, so_far.hits = so_far.losses.to(self._device), so_far.hits.to(self._device)
        self._meanwhile = so_far if first else self._nothing_since(so_far.step)
        self._optimizer.load_state_dict(state["optimizer"])
        self.costs.load_state_dict(state["costs"], first=first)
        randoms = state.get("random_of_ranks", [state["random"]])
        if len(randoms) == self._exchange.size:
            restore_random_state(randoms[self._exchange.rank], self._device)
        else:  # another number of processes draws other numbers
            self._seed_own(so_far.step)

    def _seed_own(self, step: int) -> None:
        """Of several processes each draws numbers of its own."""
        own = self.config.seed, step, self._exchange.rank
        seed_random(self.config.seed if self._exchange.size == 1 else hash(own) & (2**63 - 1))


def _precision(device: torch.device, model: nn.Module, asked: Precision) -> Precision:
    """Of the steps. On tiles convolutions take half of their time, and no run of several processes has to agree."""
    convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
    return "bfloat16" if asked == "auto" and convolves and has_bfloat16_tiles(device) else asked
