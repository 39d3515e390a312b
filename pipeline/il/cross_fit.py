"""The last layer of an IL model, fitted again to the samples that it is to score: each by the labels of the others.

An IL model has seen no label of the samples that it scores, lest a loss be too low. Of all but a sample's own it may
learn, though. Cross-fitting (Chernozhukov et al., 2018, arXiv 1608.00060) has its last layer do so, which costs next to
nothing: the samples are dealt into parts, and what is added to the logits of a part, linear in the inputs of the last
layer, is fitted to the labels of the other parts. It also puts right how sure the model is of itself. It is kept where
it lowers the mean loss of samples that it was not fitted to.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rhostream.loaders.decode import InputSpec, ReadOptions
from rhostream.loaders.index import Shard, ShardRows, key_hashes
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import Batch, EvaluationStream
from rhostream.pipeline.config import Precision
from rhostream.pipeline.il.metadata import CrossFitGain
from rhostream.pipeline.models import Costs, autocast, one_thread, repeatable_convolutions
from rhostream.selection.scoring import in_even_chunks
from rhostream.selection.tasks import Task, logits_of

#: Of texts a column of the index, by which copies that differ in white space and case alone belong to one part.
TEXT_HASH: Final = "normalized_hash"

_SALT: Final = 0x9D5F  # of the parts, which must not be those of another choice by the same hashes
_MOST_SAMPLES: Final = 100_000
_MOST_PRODUCTS: Final = 400_000_000  # of a pass over them: samples times classes times inputs of the layer
_FEWEST_INPUTS: Final = 64  # that are reckoned with: of fewer the losses take the memory
_FEWEST_OF_A_CLASS: Final = 5
_PENALTIES: Final = (0.1, 0.03, 0.01, 0.003)  # of the squared weights, by inputs of unit variance
_LEAST_DEVIATION: Final = 1e-3  # by which inputs are divided
_ITERATIONS: Final = 20  # of L-BFGS: later ones gain nothing
_READ_AT_ONCE: Final = 500


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """What is added to the logits of each part; all float32.

    Attributes:
        mean, scale: (d,), of the inputs of the last layer.
        weights: (parts, d + 1, classes), the last row of each the bias.
    """

    mean: Tensor
    scale: Tensor
    weights: Tensor

    def __call__(self, logits: Tensor, inputs: Tensor, parts: npt.NDArray[np.int64]) -> Tensor:
        """Corrected logits, (n, classes).

        Args:
            logits: (n, classes).
            inputs: of the last layer, (n, d).
            parts: (n,), see `parts_of`.
        """
        inputs = _with_ones((inputs - self.mean) / self.scale)
        corrected = logits.clone()
        for part, weights in enumerate(self.weights):
            rows = torch.from_numpy(np.flatnonzero(parts == part))
            corrected[rows] += inputs[rows] @ weights
        return corrected


def parts_of(hashes: Iterable[str], parts: int) -> npt.NDArray[np.int64]:
    """int64 (n,): the part of each sample, by the hash of its content: copies belong to one part."""
    return (key_hashes(hashes, _SALT) % np.uint64(parts)).astype(np.int64)


def part_hashes(rows: ShardRows) -> Sequence[str]:
    """What the parts of these rows go by; of texts they are read with the extra column `TEXT_HASH`."""
    if TEXT_HASH in rows.extra:
        return [str(each) for each in rows.extra[TEXT_HASH]]
    return [str(each) for each in rows.hashes.to_pylist()]


def last_layer(model: nn.Module, classes: int) -> nn.Linear | None:
    """The linear layer that the model ends in; None where it ends in something else."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    return layers[-1] if layers and layers[-1].out_features == classes else None


def logits_and_inputs(task: Task, model: nn.Module, layer: nn.Linear, batch: Batch) -> Tensor:
    """float32 (n, classes + d): the logits, and beside them what goes into the last layer.

    Where the layer is not what makes the logits, NaN stands for its inputs.
    """
    seen: list[tuple[Tensor, Tensor]] = []
    handle = layer.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    try:
        logits = logits_of(task.outputs(model, batch))
    finally:
        handle.remove()
    if len(seen) == 1 and seen[0][0].dim() == 2 and torch.equal(seen[0][1].float(), logits):
        return torch.cat([logits, seen[0][0].float()], 1)
    return torch.cat([logits, logits.new_full((len(logits), layer.in_features), torch.nan)], 1)


def cross_fit(
    workspace: Workspace,
    shards: Sequence[Shard],
    spec: InputSpec,
    model: nn.Module,
    task: Task,
    *,
    classes: int,
    parts: int,
    device: torch.device,
    precision: Precision,
    threads: int,
    costs: Costs,
) -> tuple[Corrections, CrossFitGain] | None:
    """Fit the corrections to some 100,000 samples of the shards, or fewer where there are many classes.

    Args:
        shards: that the model is to score.
        model: in eval mode, on the device.
        parts: that the samples are dealt into; 2 or more.
        costs: charged with the FLOPs, as "il_train".

    Returns:
        None where the model doesn't end in a linear layer, the samples are too few for the classes, or nothing is won.

    Raises:
        ShardError: a sample does not decode.
    """
    layer = last_layer(model, classes)
    if layer is None:
        return None
    at_most = min(_MOST_SAMPLES, _MOST_PRODUCTS // (classes * max(layer.in_features, _FEWEST_INPUTS)))
    if min(at_most, sum(shard.rows for shard in shards)) < _FEWEST_OF_A_CLASS * classes:
        return None
    samples = EvaluationStream(
        workspace,
        spec=spec,
        shards=shards,
        at_most=at_most,
        extra=(TEXT_HASH, "content_hash"),
        shard_by_rank=False,
        read_options=ReadOptions(threads=threads, workers=0),
    )
    passed = []
    with torch.no_grad(), repeatable_convolutions(), autocast(device, precision):
        for start in range(0, len(samples), _READ_AT_ONCE):
            stored = torch.from_numpy(samples.stored(slice(start, start + _READ_AT_ONCE)))
            fields = spec.inputs(spec.field, stored.to(device))
            batch = Batch(fields=fields, labels=torch.zeros(len(stored), dtype=torch.int64))
            passed.append(in_even_chunks(partial(_counted, costs, task, model, layer), batch).cpu())
    samples.close()
    logits, inputs = torch.cat(passed).split([classes, layer.in_features], 1)
    if not torch.isfinite(inputs).all():
        return None
    hashes = samples.extra.get(TEXT_HASH, samples.extra["content_hash"])
    with one_thread(logits.device):
        return fitted_corrections(
            logits, inputs, samples.targets(slice(None)), parts_of(hashes, parts), parts, task, costs
        )


def _counted(costs: Costs, task: Task, model: nn.Module, layer: nn.Linear, batch: Batch) -> Tensor:
    return costs.flops("il_train", ("cross_fit", *batch.shape), partial(logits_and_inputs, task, model, layer, batch))


def fitted_corrections(
    logits: Tensor,
    inputs: Tensor,
    targets: Tensor,
    dealt: npt.NDArray[np.int64],
    parts: int,
    task: Task,
    costs: Costs,
) -> tuple[Corrections, CrossFitGain] | None:
    mean, scale = inputs.mean(0), inputs.std(0) + _LEAST_DEVIATION
    inputs = _with_ones((inputs - mean) / scale)

    batch = Batch(fields={}, labels=targets)

    def fit(part: int, penalty: float) -> Tensor:
        rows = torch.from_numpy(np.flatnonzero(dealt != part))
        shape = ("last layer", len(rows), *inputs.shape[1:], logits.shape[1])
        counted = partial(costs.flops, "il_train", shape)
        return _lowest(logits[rows], inputs[rows], targets[rows], penalty, task, counted)

    first = torch.from_numpy(dealt == 0)
    if not first.any() or first.all():
        return None
    tried = [fit(0, penalty) for penalty in _PENALTIES]
    losses = [task.losses(logits + inputs @ weights, batch)[first].mean() for weights in tried]
    best = int(torch.stack(losses).argmin())
    others = [fit(part, _PENALTIES[best]) for part in range(1, parts)]
    corrections = Corrections(mean=mean, scale=scale, weights=torch.stack([tried[best], *others]))
    corrected = corrections(logits, inputs[:, :-1] * scale + mean, dealt)
    before, after = (float(task.losses(outputs, batch).mean()) for outputs in (logits, corrected))
    if not after < before:  # NaN is no gain
        return None
    right = task.correct(corrected, batch)
    return corrections, CrossFitGain(
        samples=len(targets),
        penalty=_PENALTIES[best],
        loss_before=before,
        loss=after,
        accuracy=None if right is None else float(right.double().mean()),
    )


def _lowest(
    logits: Tensor,
    inputs: Tensor,
    targets: Tensor,
    penalty: float,
    task: Task,
    counted: Callable[[Callable[[], Any]], Any],
) -> Tensor:
    """(d + 1, classes): what to add to the logits, times the inputs, for the lowest penalized loss.

    Classes of which there are next to none here keep their logits: what is known of them is that they are elsewhere,
    and every step would lower them.

    Args:
        counted: calls what it is given, and counts its FLOPs. To count those of the whole search takes ten times as
            long as the search: every operation of L-BFGS on a few numbers would pass through Python.
    """
    classes = logits.shape[1]
    counts = targets.sum(0) if targets.dim() == 2 else torch.bincount(targets, minlength=classes)
    known = (counts >= _FEWEST_OF_A_CLASS).float()
    batch = Batch(fields={}, labels=targets)
    weights = torch.zeros(inputs.shape[1], classes, requires_grad=True)
    search = torch.optim.LBFGS([weights], max_iter=_ITERATIONS, history_size=10, line_search_fn="strong_wolfe")

    def penalized() -> Any:
        search.zero_grad()
        losses = task.losses(logits + inputs @ (weights * known), batch)
        total = losses.mean() + penalty * weights[:-1].square().sum()
        total.backward()
        return total

    search.step(partial(counted, penalized))
    return weights.detach() * known


def _with_ones(inputs: Tensor) -> Tensor:
    return torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1)
