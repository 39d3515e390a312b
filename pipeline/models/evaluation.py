"""Loss, accuracy and the like of a model on samples that it is not trained on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from rhostream.loaders.decode import InputSpec, ReadOptions
from rhostream.loaders.index import Shard, ShardRows
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import Batch, EvaluationStream, Exchange
from rhostream.pipeline.config import Precision
from rhostream.pipeline.models.average_precision import mean_average_precision
from rhostream.pipeline.models.class_counts import macro_f1, matthews_correlation
from rhostream.pipeline.models.costs import Costs
from rhostream.pipeline.models.device import autocast
from rhostream.selection.scoring import in_even_chunks
from rhostream.selection.tasks import Classification, MultiLabel, logits_of, task_of

Found = TypeVar("Found")

_NEWTON_STEPS: Final = 12
_LOWEST_INVERSE, _HIGHEST_INVERSE = 0.1, 10.0  # what is always right would be scaled up for ever


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Of a model, over so many samples.

    Attributes:
        loss: mean of the task's own, nats.
        accuracy: share of the samples that are predicted rightly; of multi-label ones every class has to be. Of pairs
            recall@10, the mean of both ways: one figure to compare runs by.
        matthews_correlation, macro_f1: of one class a sample, see `class_counts`; else None.
        mean_average_precision: over the classes, of a multi-label corpus; else None.
        recall: of pairs, see `retrieval_recall`; else empty.
        zero_shot: of pairs, share of the images that are classified rightly by prompts; None where not asked for.
    """

    loss: float
    accuracy: float
    samples: int
    matthews_correlation: float | None = None
    macro_f1: float | None = None
    mean_average_precision: float | None = None
    recall: Mapping[str, float] = field(default_factory=dict)
    zero_shot: float | None = None

    def metrics(self) -> dict[str, float | None]:
        """Columns of `rhostream.schema.METRICS`."""
        return {
            "test_loss": self.loss,
            "test_accuracy": self.accuracy,
            "test_mcc": self.matthews_correlation,
            "test_f1": self.macro_f1,
            "test_map": self.mean_average_precision,
            "test_zero_shot": self.zero_shot,
            **self.recall,
        }


class EvaluationSet:
    """What a model is evaluated on: samples of some shards, see `EvaluationStream`. Processes share out the passes.

    Args:
        shards: at least one sample in all.
        among, at_most: see `EvaluationStream`.
        cache_bytes: samples are kept in memory where all of them fit, else read in every evaluation.
        threads: of decoding; 0 for one a core.
        exchange: of a job, whose processes evaluate in step and learn what all find; None where each is on its own.
    """

    def __init__(
        self,
        workspace: Workspace,
        shards: Sequence[Shard],
        spec: InputSpec,
        *,
        among: Callable[[ShardRows], npt.NDArray[np.bool_]] | None = None,
        at_most: int | None = None,
        cache_bytes: int = 512 << 20,
        batch_size: int = 500,
        threads: int = 0,
        exchange: Exchange | None = None,
    ) -> None:
        self._exchange = exchange or Exchange(alone=True)
        self.spec = spec
        self._samples = EvaluationStream(
            workspace,
            spec=spec,
            shards=shards,
            among=among,
            at_most=at_most,
            shard_by_rank=False,
            read_options=ReadOptions(threads=threads, workers=0),
        )
        self.task = task_of(self._samples.corpus)
        self.batch_size = min(batch_size, -(-len(self) // self._exchange.size))
        bytes_needed = len(self) * spec.values
        self._cache: dict[int, npt.NDArray[Any]] | None = {} if bytes_needed <= cache_bytes else None

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def labels(self) -> Tensor:
        """Those of a `Batch` of all samples."""
        return self._samples.targets(slice(None))

    @property
    def guess(self) -> float:
        """Loss of a guess by the classes' shares alone, nats: the entropy of the labels."""
        labels = self.labels
        if labels.dim() == 1:
            return float(torch.special.entr(torch.bincount(labels).double() / len(labels)).sum())
        shares = labels.double().mean(0)
        return float((torch.special.entr(shares) + torch.special.entr(1 - shares)).mean())

    def batches(self) -> Iterator[Batch]:
        """At most `batch_size` samples each, their field as it was read: see `SuperBatch`.

        Raises:
            ShardError: a sample does not decode.
        """
        for number in range(self._batches):
            yield self._batch(number)

    @property
    def _batches(self) -> int:
        return -(-len(self) // self.batch_size)

    def _batch(self, number: int) -> Batch:
        start = number * self.batch_size
        part = slice(start, start + self.batch_size)
        stored = self._cache.get(number) if self._cache is not None else None
        if stored is None:
            stored = self._samples.stored(part)
            if self._cache is not None:
                self._cache[number] = stored
        return Batch(fields={self.spec.field: torch.from_numpy(stored)}, labels=self._samples.targets(part))

    def evaluate(
        self,
        model: nn.Module,
        device: torch.device,
        precision: Precision = "float32",
        *,
        costs: Costs | None = None,
        cost: str = "evaluate",
    ) -> Evaluation:
        """Evaluate in eval mode; the model's training flags are as before afterwards.

        The logits of all samples are held where the mean average precision is asked of them: 4 bytes a class.

        Args:
            costs: charged with the seconds and FLOPs under the name `cost`.

        Raises:
            ShardError: a sample does not decode.
            OtherRankError: one of another process does not.
        """
        sums: dict[int, tuple[float, int]] = {}  # of each batch: of its losses, and of the right predictions
        predicted: dict[int, Tensor] = {}
        held: dict[int, tuple[Tensor, Tensor]] = {}
        for number, logits, labels in self._outputs(model, device, precision, costs or Costs(device), cost):
            batch = Batch(fields={}, labels=labels)
            right = self.task.correct(logits, batch)
            loss = float(self.task.losses(logits, batch).sum().double())
            sums[number] = (loss, int(right.sum()) if right is not None else 0)
            if isinstance(self.task, Classification):
                predicted[number] = logits.argmax(1).cpu()
            elif isinstance(self.task, MultiLabel):
                held[number] = (logits.cpu(), labels.bool().cpu())
        losses, correct = zip(*self._of_all(sums), strict=True)
        found = Evaluation(loss=sum(losses) / len(self), accuracy=sum(correct) / len(self), samples=len(self))
        if isinstance(self.task, Classification):
            classes = torch.cat(self._of_all(predicted))
            correlation, f1 = (each(classes, self.labels) for each in (matthews_correlation, macro_f1))
            return replace(found, matthews_correlation=correlation, macro_f1=f1)
        if not isinstance(self.task, MultiLabel):
            return found
        scores, present = (torch.cat(parts) for parts in zip(*self._of_all(held), strict=True))
        return replace(found, mean_average_precision=mean_average_precision(scores, present))

    def calibrated(
        self, model: nn.Module, device: torch.device, precision: Precision, *, costs: Costs, cost: str
    ) -> Evaluation:
        """`evaluate` of a classification, but that the loss is the `calibrated_loss`."""
        found = self._outputs(model, device, precision, costs, cost)
        outputs = self._of_all({number: (logits.cpu(), labels.cpu()) for number, logits, labels in found})
        logits, labels = (torch.cat(parts).to(device) for parts in zip(*outputs, strict=True))
        correct = int((logits.argmax(1) == labels).sum())
        return Evaluation(loss=calibrated_loss(logits, labels), accuracy=correct / len(self), samples=len(self))

    def _outputs(
        self, model: nn.Module, device: torch.device, precision: Precision, costs: Costs, cost: str
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Number, logits float32 (n, classes) and labels on the device of each batch that is this process's.

        Every process has as many passes, the last of which may be one that another has, too: where the parameters are
        shared out, a pass of one is a pass of all.
        """
        rank, size = self._exchange.rank, self._exchange.size
        with evaluating(model), costs.charge(cost):
            for turn in range(-(-self._batches // size)):
                number = (rank + turn * size) % self._batches
                batch = self._exchange.in_step(partial(self._batch, number)).to(device)
                inputs = self.spec.inputs(self.spec.field, batch.fields[self.spec.field])

                def run(part: Batch) -> Any:
                    return costs.flops(cost, ("forward", *part.shape), partial(self.task.outputs, model, part))

                with autocast(device, precision):
                    logits = logits_of(in_even_chunks(run, Batch(fields=inputs, labels=batch.labels)))
                yield number, logits, batch.labels

    def _of_all(self, found: dict[int, Found]) -> list[Found]:
        """What every process has found, in the order of the batches."""
        together: dict[int, Found] = {}
        for of_process in self._exchange.objects(found):
            together |= of_process
        return [together[number] for number in sorted(together)]

    def close(self) -> None:
        """Let the reading threads and the cached samples go."""
        self._samples.close()
        self._cache = None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """In eval mode and without gradients; the model's training flags are as before afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training


def calibrated_loss(logits: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy (nats) at the temperature that makes it lowest (Guo et al., 2017, section 4.2).

    Args:
        logits: (n, classes).
        labels: int64 (n,).

    Returns:
        nan where a logit is not finite.
    """
    logits = logits.double()
    of_label = logits.gather(1, labels[:, None])[:, 0]
    inverse = 1.0  # of the temperature, in which the loss is convex: Newton's method
    for _ in range(_NEWTON_STEPS):
        p = (inverse * logits).softmax(1)
        mean = (p * logits).sum(1)
        slope = float((mean - of_label).mean())
        curvature = float(((p * logits.square()).sum(1) - mean.square()).mean())
        moved = inverse - slope / max(curvature, 1e-12)
        inverse = min(max(moved, inverse / 2, _LOWEST_INVERSE), 2 * inverse, _HIGHEST_INVERSE)
    return float(functional.cross_entropy(inverse * logits, labels))
