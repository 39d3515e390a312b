"""Super-batches in, the batches worth training on out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rhostream.errors import ConfigError, RhostreamError
from rhostream.loaders.batch import SuperBatch
from rhostream.selection.functions import Scored, selection_function
from rhostream.selection.ledger import Ledger
from rhostream.selection.meter import Meter, NoMeter
from rhostream.selection.scorer import Scorer


@dataclass(frozen=True, kw_only=True)
class SelectedBatch:
    """b_t, what one gradient step is taken on, n_b samples on the model's device.

    Attributes:
        images: float32 (n_b, C, H, W), normalised.
        labels: int64 (n_b,).
        keys: names, length n_b.
        weights: float32 (n_b,), of each sample's loss; ones unless the selector draws by importance.
        il: float32 (n_b,), nats, or None.
        positions: int64 (n_b,), where in the super-batch they stood.
        super_batch: the candidates they were chosen from.
        correct: bool (n,), of all candidates: does the model predict the label already? None where not scored.
    """

    images: Tensor
    labels: Tensor
    keys: list[str]
    weights: Tensor
    il: Tensor | None
    positions: npt.NDArray[np.int64]
    super_batch: SuperBatch = field(repr=False)
    correct: Tensor | None = field(repr=False, default=None)

    def __len__(self) -> int:
        return len(self.keys)


class OnlineSelector:
    """Chooses the n_b candidates of each super-batch with the highest score (arXiv 2206.07137, Algorithm 1).

    Args:
        model: the model in training; it is read at each step and never changed.
        batch_size: n_b. A super-batch cut short keeps its share of n_b / n_B.
        select: name of a selection function; "uniform" takes the candidates as they come.
        scorer: how the scoring pass runs.
        ledger: where to record every candidate, or None.
        meter: what it charges its costs to.

    Raises:
        ConfigError: an unknown selection function, or one that needs an IL table which the stream does not join.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        batch_size: int = 32,
        select: str = "rho_loss",
        scorer: Scorer | None = None,
        ledger: Ledger | None = None,
        meter: Meter | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size {batch_size}: a step needs at least one sample")
        self.model = model
        self.batch_size = batch_size
        self.function = selection_function(select)
        self.step = 0
        self._scorer = scorer or Scorer(model)
        self._ledger = ledger
        self._meter = meter or NoMeter()

    def __call__(self, stream: Iterable[SuperBatch]) -> Iterator[SelectedBatch]:
        """The selected batches of one iteration over `stream`."""
        super_batches = iter(stream)
        while True:
            with self._meter.charge("load"):
                super_batch = next(super_batches, None)
            if super_batch is None:
                return
            batch = self.select(super_batch)
            if batch is not None:
                yield batch

    def select(self, super_batch: SuperBatch) -> SelectedBatch | None:
        """Choose from one super-batch; None, and no step, where fewer than two of its candidates could be read."""
        least = min(2, self.batch_size)  # BatchNorm makes no statistics of a single sample
        quota = max(least, round(self.batch_size * min(1.0, super_batch.drawn / super_batch.size)))
        if len(super_batch) < least:
            if self._ledger is not None:
                nothing = torch.empty(0, dtype=torch.int64)
                self._ledger.record(self.step + 1, super_batch, nothing, None, None, None, unscored="too_few")
            return None
        self.step += 1
        with self._meter.charge("score"):
            device = next(self.model.parameters()).device
            on_device = super_batch.to(device, non_blocking=True)
            images = super_batch.view.normalise(on_device.images)
            scored, score = self._score(on_device, images)
            if score is None:
                chosen = torch.arange(min(quota, len(super_batch)), device=device)
            else:
                # Stable, so that ties go to the earlier candidate on every device.
                chosen = torch.argsort(score, descending=True, stable=True)[:quota]
        self._record(super_batch, chosen, scored, score)
        positions = chosen.cpu().numpy()
        return SelectedBatch(
            images=images[chosen],
            labels=on_device.labels[chosen],
            keys=[super_batch.keys[position] for position in positions],
            weights=torch.ones(len(chosen), device=device),
            il=None if on_device.il is None else on_device.il[chosen],
            positions=positions,
            super_batch=super_batch,
            correct=None if scored is None or scored.logits is None else _correct(scored),
        )

    def _score(self, super_batch: SuperBatch, images: Tensor) -> tuple[Scored | None, Tensor | None]:
        function = self.function
        if function.score is None:
            return None, None
        if "il" in function.needs and super_batch.il is None:
            raise ConfigError(f"selection function {function.name!r} needs irreducible losses, and the stream joins "
                              'none: name an IL table, CandidateStream(…, il="small_cnn")')  # fmt: skip
        logits = None
        if "logits" in function.needs:
            logits = self._meter.flops("score", tuple(images.shape), lambda: self._scorer.logits(images))
        scored = Scored(labels=super_batch.labels, il=super_batch.il, logits=logits)
        score = function.score(scored)
        finite = int(torch.isfinite(score).sum())
        if finite < len(score):
            raise RhostreamError(
                f"step {self.step}: {len(score) - finite} of {len(score)} scores are not finite ({function.name}): the "
                "training has diverged; lower the learning rate, or train in float32"
            )
        return scored, score

    def _record(self, super_batch: SuperBatch, chosen: Tensor, scored: Scored | None, score: Tensor | None) -> None:
        if self._ledger is None:
            return
        has_logits = scored is not None and scored.logits is not None
        self._ledger.record(
            self.step,
            super_batch,
            chosen,
            loss=scored.loss if has_logits and scored else None,
            score=score,
            correct=_correct(scored) if has_logits and scored else None,
            unscored="not_needed" if score is None else None,
        )


def _correct(scored: Scored) -> Tensor:
    assert scored.logits is not None
    return scored.logits.argmax(dim=1) == scored.labels
