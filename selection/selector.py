"""Super-batches in, the batches worth training on out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rhostream.errors import ConfigError, RhostreamError
from rhostream.loaders.batch import SuperBatch, Tolerance
from rhostream.loaders.images import ImageReader, PendingImages
from rhostream.selection.functions import Scored, selection_function
from rhostream.selection.ledger import Ledger
from rhostream.selection.meter import Meter, NoMeter
from rhostream.selection.scorer import Scorer


@dataclass(frozen=True, kw_only=True)
class SelectedBatch:
    """b_t, what one gradient step is taken on, n_b samples on the model's device.

    Attributes:
        images: float32 (n_b, C, H, W), normalised; full-size ones where a scoring view was scored.
        labels: int64 (n_b,).
        keys: names, length n_b.
        weights: float32 (n_b,), of each sample's loss; ones unless the selector draws by importance.
        il: float32 (n_b,), nats, or None.
        positions: int64 (n_b,), where in the super-batch they stood.
        super_batch: the candidates they were chosen from.
        correct: bool (n,), of all candidates: does the model predict the label already? None where not scored.
        unreadable: how many more were chosen, whose full images could not be read.
    """

    images: Tensor
    labels: Tensor
    keys: list[str]
    weights: Tensor
    il: Tensor | None
    positions: npt.NDArray[np.int64]
    super_batch: SuperBatch = field(repr=False)
    correct: Tensor | None = field(repr=False, default=None)
    unreadable: int = 0

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """On another device; trainers that move batches themselves call this."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=non_blocking) for name in ("images", "labels", "weights")
        }
        il = None if self.il is None else self.il.to(device, non_blocking=non_blocking)
        return replace(self, il=il, **moved)


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """What was chosen from a super-batch, its images maybe still being read.

    Attributes:
        super_batch: on the model's device.
        positions: int64 (n_b,), of the chosen candidates.
        images: normalised, of the chosen; None where their full images are in `reading`, or nothing was chosen.
    """

    super_batch: SuperBatch
    positions: npt.NDArray[np.int64]
    scored: Scored | None
    score: Tensor | None
    images: Tensor | None
    reading: PendingImages | None

    @property
    def correct(self) -> Tensor | None:
        if self.scored is None or self.scored.logits is None:
            return None
        return self.scored.logits.argmax(dim=1) == self.scored.labels


class OnlineSelector:
    """Chooses the n_b candidates of each super-batch with the highest score (arXiv 2206.07137, Algorithm 1).

    Args:
        model: the model in training; it is read at each step and never changed.
        batch_size: n_b. A super-batch cut short keeps its share of n_b / n_B.
        select: name of a selection function; "uniform" takes the candidates as they come.
        scorer: how the scoring pass runs.
        ledger: where to record every candidate, or None.
        meter: what it charges its costs to.
        score_ahead: while the full images of the selected are being read (where the stream reads a scoring view), score
            the next super-batch; its scores are then one step old, and the stream is one super-batch further than the
            batch in hand: resume from `batch.super_batch.state`, not from `stream.state_dict()`.
        fresh_every: after every so many steps no super-batch has been scored ahead, so that a checkpoint taken there
            continues as if it had not been; 0 for never.

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
        score_ahead: bool = False,
        fresh_every: int = 0,
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
        self._score_ahead, self._fresh_every = score_ahead, fresh_every
        self._reader: ImageReader | None = None  # of the full images, held from step to step
        self._tolerance: tuple[int, Tolerance] | None = None  # of full images, with its epoch

    def __call__(self, stream: Iterable[SuperBatch]) -> Iterator[SelectedBatch]:
        """The selected batches of one iteration over `stream`."""
        super_batches = iter(stream)
        waiting: _Choice | None = None
        while True:
            if waiting is not None and not self._looks_ahead():
                yield from self._finished(waiting)
                waiting = None
            with self._meter.charge("load"):
                super_batch = next(super_batches, None)
            choice = self._choose(super_batch) if super_batch is not None else None
            if waiting is not None:
                yield from self._finished(waiting)
            if choice is None:
                return
            waiting = choice if choice.reading is not None else None
            if waiting is None:
                yield from self._finished(choice)

    def select(self, super_batch: SuperBatch) -> SelectedBatch | None:
        """Choose from one super-batch; None, and no step, where fewer than two of its candidates could be read."""
        return next(self._finished(self._choose(super_batch)), None)

    def _looks_ahead(self) -> bool:
        return self._score_ahead and not (self._fresh_every and (self.step + 1) % self._fresh_every == 0)

    @property
    def _least(self) -> int:
        return min(2, self.batch_size)  # BatchNorm makes no statistics of a single sample

    def _choose(self, super_batch: SuperBatch) -> _Choice:
        """Score and choose, and begin to read the full images of the chosen."""
        quota = max(self._least, round(self.batch_size * min(1.0, super_batch.drawn / super_batch.size)))
        if len(super_batch) < self._least:
            nobody = np.empty(0, np.int64)
            return _Choice(
                super_batch=super_batch, positions=nobody, scored=None, score=None, images=None, reading=None
            )
        with self._meter.charge("score"):
            device = next(self.model.parameters()).device
            on_device = super_batch.to(device)
            images = super_batch.view.normalise(on_device.images)
            scored, score = self._score(on_device, images)
            if score is None:
                chosen = torch.arange(min(quota, len(super_batch)), device=device)
            else:
                # Stable, so that ties go to the earlier candidate on every device.
                chosen = torch.argsort(score, descending=True, stable=True)[:quota]
            positions = chosen.cpu().numpy()
        full = super_batch.full
        self._reader = full.reader() if full is not None else None
        return _Choice(
            super_batch=on_device,
            positions=positions,
            scored=scored,
            score=score,
            images=images[chosen] if full is None else None,
            reading=full.submit(positions) if full is not None else None,
        )

    def _finished(self, choice: _Choice) -> Iterator[SelectedBatch]:
        """The batch that was chosen, where enough of its images could be read."""
        super_batch = choice.super_batch
        images, readable = self._images(choice)
        positions = choice.positions[readable]
        if len(positions) < self._least:
            self._record(self.step + 1, choice, np.empty(0, np.int64), unreadable=choice.positions[~readable])
            return
        self.step += 1
        self._record(self.step, choice, positions, unreadable=choice.positions[~readable])
        chosen = torch.from_numpy(positions).to(images.device)
        yield SelectedBatch(
            images=images,
            labels=super_batch.labels[chosen],
            keys=[super_batch.keys[position] for position in positions],
            weights=torch.ones(len(chosen), device=images.device),
            il=None if super_batch.il is None else super_batch.il[chosen],
            positions=positions,
            super_batch=super_batch,
            correct=choice.correct,
            unreadable=len(choice.positions) - len(positions),
        )

    def _images(self, choice: _Choice) -> tuple[Tensor, npt.NDArray[np.bool_]]:
        """The normalised images of the chosen that could be read, and which of the chosen these are: bool (n_b,)."""
        readable = np.ones(len(choice.positions), bool)
        super_batch = choice.super_batch
        if choice.reading is None or super_batch.full is None:
            return (super_batch.images if choice.images is None else choice.images), readable
        with self._meter.charge("load"):
            pixels, failures = choice.reading.result()
        for position, cause in failures:
            candidate = choice.positions[position]
            self._tolerate(super_batch, candidate, cause)
            readable[position] = False
        images = torch.from_numpy(pixels).to(super_batch.images.device)
        if failures:
            images = images[torch.from_numpy(readable).to(images.device)]
        return super_batch.full.view.normalise(images), readable

    def _tolerate(self, super_batch: SuperBatch, candidate: int, cause: str) -> None:
        """Count a full image that cannot be read; as many an epoch are allowed as of the candidates."""
        assert super_batch.full is not None
        if self._tolerance is None or self._tolerance[0] != super_batch.epoch:
            self._tolerance = super_batch.epoch, Tolerance(super_batch.full.reading.max_unreadable)
        self._tolerance[1].count(super_batch.keys[candidate], super_batch.shards[candidate], cause)

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
                f"after step {self.step}: {len(score) - finite} of {len(score)} scores are not finite "
                f"({function.name}): the training has diverged; lower the learning rate, or train in float32"
            )
        return scored, score

    def _record(
        self, step: int, choice: _Choice, positions: npt.NDArray[np.int64], unreadable: npt.NDArray[np.int64]
    ) -> None:
        """Add the candidates of one super-batch to the ledger; without positions no step was taken on it."""
        if self._ledger is None:
            return
        has_logits = choice.scored is not None and choice.scored.logits is not None
        unscored = None if len(positions) else "too_few"
        if len(positions) and choice.score is None:
            unscored = "not_needed"
        self._ledger.record(
            step,
            choice.super_batch,
            positions,
            loss=choice.scored.loss if has_logits and choice.scored else None,
            score=choice.score,
            correct=choice.correct,
            unscored=unscored,
            unreadable=unreadable,
        )
