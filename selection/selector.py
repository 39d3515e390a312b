"""Super-batches in, the batches worth training on out."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rhostream.errors import ConfigError
from rhostream.loaders.stream import Exchange, Ranks, SuperBatch, SuperBatchStream, model_inputs
from rhostream.selection.batch_queue import BatchQueue
from rhostream.selection.choice import Choice, PendingScores
from rhostream.selection.choosing import Choosing
from rhostream.selection.companions import LiveIL
from rhostream.selection.dealing import dealt, require_shares
from rhostream.selection.full_images import FullImageReading
from rhostream.selection.ledger import Ledger
from rhostream.selection.policies import Fixed, Policy, SelectionConfig
from rhostream.selection.rules import unweighted
from rhostream.selection.scoring import (
    BackgroundScoring,
    CandidateScores,
    Meter,
    NoMeter,
    RemoteScorers,
    ScoreCache,
    Scorer,
    Scores,
)
from rhostream.selection.selected_batch import SelectedBatch
from rhostream.selection.source import DIFFERENCE, DIGEST_BYTES, digest_of, ranks_of, require_unbatched
from rhostream.selection.tasks import Classification, Criterion, Forward, Task
from rhostream.selection.transforms import Transform, transformed

_SECONDS_BETWEEN_SAVES: Final = 10.0  # of the ledger, where epochs are short


class OnlineSelector:
    """Chooses the n_b candidates of each super-batch with the highest score (arXiv 2206.07137, Algorithm 1).

    The ranks of a job choose together: each scores its part of the super-batch, all learn the scores and choose the
    same candidates, and each gets an even share of them. Which ranks there are is the stream's to say. All processes
    iterate in step, and raise together what one of them fails at.

    Args:
        model: the model in training; it is read at each step and never changed.
        batch_size: n_b, over all ranks, where `select` is a name. A super-batch cut short keeps its share of n_b / n_B.
        select: name of a selection function ("uniform" takes the candidates as they come; "jest" chooses image-text
            pairs jointly, with task=Pairs()), a `SelectionConfig` for finer settings, or a `Policy` that goes over from
            one selection to another.
        task: what goes into the model and what a candidate's loss is; a `Classification` by default.
        forward: (model, batch) -> outputs, for a model that takes something else than images.
        criterion: (outputs, batch) -> float32 (n,), the loss of each candidate.
        transform: of the selected images, before they are normalized: a function of one uint8 image (C, H, W), a
            `PerSample` or a `PerBatch`.
        scorer: how the scoring pass runs, and with what task; a `ProxyScorer` has another model score.
        live_il: gives the candidates their irreducible losses, in place of an IL table.
        cache: re-uses losses of the last steps, for functions that read the loss alone.
        ledger: where to record every candidate, or None. It is saved with `state_dict` and at the ends of epochs.
        meter: what it charges its costs to.
        score_ahead: score the next super-batch while the model is trained on this one, and while the full images of
            this one are read (where the stream reads thumbnails): in a thread, on a CUDA device in a stream of its
            own, with a copy of the model. Its scores are then one step old, and the stream is one super-batch further
            than the batch in hand: resume from `batch.state`, not from `stream.state_dict()`. Selections that fill
            batches from more or less than one super-batch each are scored in turn with the training all the same.
        staleness: score so many super-batches ahead of the training: their scores are so many steps old, but for the
            first ones of an epoch, which are scored together. All else is as of `score_ahead`, but for the thread.
        scorers: ranks that score for this one, whose stream reads nothing to be scored.
        seed: of the rules that draw at random.

    Raises:
        ConfigError: an unknown selection function; or a task, forward or criterion beside a scorer, which has its own.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        batch_size: int = 32,
        select: str | SelectionConfig | Policy = "rho_loss",
        task: Task | None = None,
        forward: Forward | None = None,
        criterion: Criterion | None = None,
        transform: Transform | None = None,
        scorer: Scorer | None = None,
        live_il: LiveIL | None = None,
        cache: ScoreCache | None = None,
        ledger: Ledger | None = None,
        meter: Meter | None = None,
        score_ahead: bool = False,
        staleness: int = 0,
        scorers: RemoteScorers | None = None,
        seed: int = 0,
    ) -> None:
        if isinstance(select, str):
            select = SelectionConfig(function=select, batch_size=batch_size)
        self.model = model
        self.policy: Policy = Fixed(select) if isinstance(select, SelectionConfig) else select
        if scorer is not None and (task, forward, criterion) != (None, None, None):
            raise ConfigError("a scorer has a task of its own: give it task, forward and criterion, not the selector")
        task = (task or Classification()).using(forward=forward, criterion=criterion)
        self.scorer = scorer or Scorer(model, task=task)
        self.step = 0
        self._ledger = ledger
        self._meter = meter or NoMeter()
        self._transform, self._live_il = transform, live_il
        self._cache = cache
        self._exchange, self._ranks = Exchange() if scorers is None else scorers.learners, Ranks()
        self._scoring = CandidateScores(self.scorer, cache, self._meter, self._exchange)
        self._background: tuple[BackgroundScoring, CandidateScores] | None = None
        self._full_images = FullImageReading(self._meter)
        self._score_ahead, self._staleness = score_ahead, max(staleness, int(score_ahead))
        self._ahead: list[PendingScores] = []  # scored before the training on the last batch
        self._resumed: deque[dict[str, Any]] = deque()  # the same, of a state that was loaded
        self._scorers = scorers
        self._choosing = Choosing(self._exchange, seed)
        self._seed = seed
        self._queue = BatchQueue()

    @property
    def batch_size(self) -> int:
        """n_b of the next batch, over all ranks."""
        return self.policy.next().batch_size

    @property
    def one_batch_each(self) -> bool:
        """Does every super-batch give one batch?"""
        return isinstance(self.policy, Fixed) and not self.policy.selection.queues

    @property
    def waiting(self) -> int:
        """Samples that are chosen and wait to fill a batch, over all ranks."""
        return len(self._queue)

    def __call__(self, stream: Iterable[SuperBatch]) -> Iterator[SelectedBatch]:
        """The selected batches of one iteration over `stream`.

        Raises:
            ConfigError: n_b is not a multiple of the ranks, or the processes were given different candidates.
            OtherRankError: another process has failed.
        """
        require_unbatched(stream)
        self._ranks = ranks_of(stream)
        self._queue.share_out(self._ranks, self._device)
        yield from self._whole_batches(self.policy.next())  # of a state that was loaded
        super_batches, pending = iter(stream), deque[PendingScores]()
        while pending or self._begin_next(stream, super_batches, pending):
            waiting = self._choose(pending.popleft())
            ahead = 0 if waiting.selection.queues else self._staleness
            while len(pending) < ahead and self._begin_next(stream, super_batches, pending, beside_training=True):
                pass
            self._ahead = list(pending)
            try:
                yield from self._finished(waiting)
            finally:
                self._ahead = []
        if self._ledger is not None:
            self._ledger.save(at_most_every=_SECONDS_BETWEEN_SAVES)

    def _begin_next(
        self,
        stream: Iterable[SuperBatch],
        super_batches: Iterator[SuperBatch],
        pending: deque[PendingScores],
        *,
        beside_training: bool = False,
    ) -> bool:
        """Begin to score the next super-batch; False where there is none."""
        selection = SelectionConfig(**self._resumed[0]["selection"]) if self._resumed else self.policy.next()
        if isinstance(stream, SuperBatchStream):
            stream.prefiltering = selection.prefilter
        with self._meter.charge("load"):
            super_batch = self._next(super_batches)
        if super_batch is None:
            return False
        pending.append(self._begin(super_batch, selection, beside_training=beside_training))
        return True

    def select(self, super_batch: SuperBatch) -> SelectedBatch | None:
        """Choose a batch from one super-batch; None, and no step, where it has too few readable candidates.

        Raises:
            ConfigError: batches are filled from more or less than one super-batch each.
        """
        if not self.one_batch_each:
            raise ConfigError("this selector does not choose one batch from each super-batch: iterate over it")
        part = super_batch.part
        self._ranks = Ranks() if part is None else Ranks(part.rank, part.chunks.ranks)
        return next(self._finished(self._choose(self._begin(super_batch, self.policy.next()))), None)

    def state_dict(self) -> dict[str, Any]:
        """All that a run needs to go on after the last batch, the stream's position included: tensors and plain values.

        What was scored ahead of that batch is there, too; the ledger is written up to it. The model and its optimizer
        are the trainer's to save; so are a `LiveIL`'s, unless this selector was given it. Every rank gives the same
        state, and has to be asked for it where samples wait to fill a batch.
        """
        if self._background is not None:
            self._background[0].wait()  # it may be writing to the cache
        if self._ledger is not None:
            self._ledger.save()
        epoch, stream = self._queue.at
        return {
            "step": self.step,
            "epoch": epoch,
            "stream": stream,
            "queue": self._queue.state_dict(self._ranks, self._exchange),
            "ahead": [pending.state_dict() for pending in self._ahead],
            "policy": self.policy.state_dict(),
            "rules": self._choosing.state_dict(),
            "scoring": self._scoring.state_dict(),
            "live_il": None if self._live_il is None else self._live_il.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], stream: SuperBatchStream | None = None) -> None:
        """The inverse of `state_dict`, for a selector made with the same settings; the ledger goes back to that step.

        Args:
            stream: put where the state says.

        Raises:
            WorkspaceError: the stream has another order: other shards, or another seed.
        """
        if stream is not None and state["stream"]:
            stream.load_state_dict(state["stream"])
        self.step = state["step"]
        self._queue.load_state_dict(state["queue"], (state["epoch"], state["stream"]))
        self._ahead, self._resumed = [], deque(state["ahead"] or ())
        if self._ledger is not None:
            self._ledger.go_on_after(self.step)
        if self._live_il is not None:
            self._live_il.load_state_dict(state["live_il"])
        self.policy.load_state_dict(state["policy"])
        self._choosing.load_state_dict(state["rules"])
        self._scoring.load_state_dict(state["scoring"])

    def go_on_after(self, step: int) -> None:
        """Count on from this step, in the ledger as well: for trainers that resume by skipping batches."""
        self.step = step
        if self._ledger is not None:
            self._ledger.go_on_after(step)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _next(self, super_batches: Iterator[SuperBatch]) -> SuperBatch | None:
        """The next super-batch, or this rank's part of it; the same one in every process."""
        found: list[SuperBatch | None] = []

        def read() -> bytes:
            super_batch = next(super_batches, None)
            found.append(super_batch)
            return b"" if self._exchange.size == 1 else digest_of(super_batch)

        self._exchange.same(read, DIGEST_BYTES, DIFFERENCE)
        return found[0]

    def _begin(
        self, super_batch: SuperBatch, selection: SelectionConfig, *, beside_training: bool = False
    ) -> PendingScores:
        """Score a super-batch, now or beside the training."""
        require_shares(selection.batch_size, self._ranks.size)
        with self._meter.charge("load"):
            on_device = super_batch.to(self._device)
        if self._resumed:
            pending = PendingScores.from_state_dict(self._resumed.popleft(), on_device, selection)
            if pending is not None:
                return pending
        if self._live_il is not None:
            with self._meter.charge("score"):
                on_device = replace(on_device, il=self._live_losses(on_device, self._live_il))
        scores: Callable[[], Scores] | None = None
        # A pass over a single candidate has no statistics for BatchNorm; to take it as it comes needs no pass.
        candidates = len(super_batch if super_batch.part is None else super_batch.part.whole)
        if candidates >= (1 if selection.queues and not selection.scores else self._least(selection)):
            with self._meter.charge("score"):
                if self._scorers is not None and selection.scores:
                    scores = self._scorers.begin(on_device, selection.chosen_by, self.step, self._scoring)
                elif beside_training and selection.scores and self._score_ahead:
                    background, scoring = self._beside_training()
                    scores = background.begin(partial(scoring.score, on_device, selection.chosen_by, self.step))
                else:
                    found = self._scoring.score(on_device, selection.chosen_by, self.step)
                    scores = lambda: found  # noqa: E731 - there already
        return PendingScores(super_batch=on_device, selection=selection, scores=scores)

    def _live_losses(self, super_batch: SuperBatch, live_il: LiveIL) -> Tensor:
        """float32 (n,): irreducible losses of what this rank has read."""
        if super_batch.part is None:
            work = partial(live_il.il, super_batch)
            return self._meter.flops("score", ("live IL", *super_batch.shape), work)
        il = torch.zeros(len(super_batch), device=self._device)
        for rows in super_batch.part.passes():
            if len(rows):
                chunk = super_batch.take(rows)
                work = partial(live_il.il, chunk)
                losses = self._meter.flops("score", ("live IL", *chunk.shape), work)
                il[torch.from_numpy(rows).to(self._device)] = losses
        return il

    def _beside_training(self) -> tuple[BackgroundScoring, CandidateScores]:
        if self._background is None:
            background, exchange = BackgroundScoring(self.scorer), Exchange()
            if self._exchange.size > 1:
                exchange.join()  # here, in step with the other ranks, and not in the thread
            self._background = background, CandidateScores(background.scorer, self._cache, self._meter, exchange)
        return self._background

    def _choose(self, pending: PendingScores) -> Choice:
        """Choose by the scores, once they are there, and begin to read the full images of the chosen."""
        local, selection, device = pending.super_batch, pending.selection, pending.super_batch.labels.device
        found = Scores(super_batch=local if local.part is None else local.part.whole.to(device))
        chosen = unweighted(torch.empty(0, dtype=torch.int64, device=device))
        if pending.scores is not None:
            with self._meter.charge("score"):
                found = pending.scores()
                # Of those that other ranks have read it is known by now whether they are readable.
                if selection.scores and len(found.super_batch) < self._least(selection):
                    found = replace(found, scored=None, score=None)
                else:
                    if found.scored is not None and found.score is not None:
                        self.policy.scored(found.scored, found.score)
                    chosen = self._choosing.choose(found, selection, self._ranks, device)
        super_batch, scored = found.super_batch, found.scored
        positions = chosen.positions.cpu().numpy()
        of_whole = positions if found.positions is None else found.positions[positions]
        owners = self._dealt(local, of_whole, selection)
        return Choice(
            super_batch=super_batch if scored is None else replace(super_batch, correct=scored.correct),
            selection=selection,
            positions=positions,
            owners=owners,
            weights=chosen.weights,
            scored=scored,
            score=found.score,
            local=local,
            reading=self._full_images.begin(local, of_whole[owners == self._ranks.rank]),
        )

    def _dealt(
        self, local: SuperBatch, positions: npt.NDArray[np.int64], selection: SelectionConfig
    ) -> npt.NDArray[np.int64]:
        """int64 (m,): the rank that trains on each of the chosen, whose positions are those in the whole."""
        holders = positions if local.part is None else local.part.chunks.holders(positions)
        if self._alone(selection):
            return dealt(holders, self._ranks.size)
        return dealt(holders, self._ranks.size, waiting=self._queue.owners, batch_size=selection.batch_size)

    def _alone(self, selection: SelectionConfig) -> bool:
        """Does this super-batch, and no other, make the next batch?"""
        return not selection.queues and not self._queue

    def _finished(self, choice: Choice) -> Iterator[SelectedBatch]:
        """The batches that the chosen complete, where enough of their images could be read."""
        super_batch, selection, alone = choice.super_batch, choice.selection, self._alone(choice.selection)
        fields, readable = self._read(choice)
        owners = choice.owners[readable]
        if alone and (owners.size < self._least(selection) or not self._each_has_enough(owners, selection)):
            self._record(choice, readable, unscored="too_few")
            return
        self._record(choice, readable)
        mine = readable & (choice.owners == self._ranks.rank)
        chosen = choice.batch(fields, mine) if mine.any() else None
        self._queue.add(super_batch, chosen, owners.tolist(), unreadable=int((~readable).sum()))
        if alone:
            yield self._batch(len(owners))
        else:
            yield from self._whole_batches(selection)

    def _read(self, choice: Choice) -> tuple[dict[str, Tensor], npt.NDArray[np.bool_]]:
        """The fields of this rank's samples, and which of all chosen could be read: bool (m,)."""
        fields: dict[str, Tensor] = {}
        readable = np.ones(len(choice.positions), bool)

        def read() -> bytes:
            found, of_mine = self._full_images.of(choice.local, choice.reading)
            fields.update(found)
            readable[choice.owners == self._ranks.rank] = of_mine
            return readable.tobytes()

        if choice.local.part is None:
            read()
        else:
            for rank, told in enumerate(self._exchange.together(self._ranks, read, len(readable))):
                theirs = choice.owners == rank
                readable[theirs] = np.frombuffer(told, bool, len(readable))[theirs]
        return fields, readable

    def _each_has_enough(self, owners: npt.NDArray[np.int64], selection: SelectionConfig) -> bool:
        """Has every rank as many samples as BatchNorm needs?"""
        least = min(2, selection.batch_size // self._ranks.size)
        return int(np.bincount(owners, minlength=self._ranks.size).min()) >= least

    def _whole_batches(self, selection: SelectionConfig) -> Iterator[SelectedBatch]:
        while self.waiting >= selection.batch_size:
            yield self._batch(selection.batch_size)

    def _batch(self, size: int) -> SelectedBatch:
        """The next batch out of the queue."""
        self.step += 1
        self.policy.stepped()
        batch = self._queue.take(size, self._ranks)
        return replace(batch, fields=self._inputs(batch))

    def _inputs(self, batch: SelectedBatch) -> dict[str, Tensor]:
        """The fields of a batch that has waited, transformed and normalized."""
        fields = model_inputs(batch.fields, batch.specs)
        if self._transform is not None:
            if "image" not in batch.fields:
                raise ConfigError("transform: a transform is of images, and the stream gives texts; leave it out")
            with self._meter.charge("load"):
                seed = f"transform/{self._seed}/{batch.epoch}"
                images = transformed(self._transform, batch.images, batch.keys, seed)
            spec = batch.specs["image"]
            normalized = spec.inputs("image", images)["image"] if images.dtype == torch.uint8 else images.float()
            fields = {"thumbnail": fields["image"], **fields, "image": normalized}
        return fields

    @staticmethod
    def _least(selection: SelectionConfig) -> int:
        return min(2, selection.batch_size)  # BatchNorm makes no statistics of a single sample

    def _record(
        self,
        choice: Choice,
        readable: npt.NDArray[np.bool_],
        unscored: str | None = None,
    ) -> None:
        """Add the candidates of one super-batch to the ledger, under the next step."""
        if self._ledger is None:
            return
        if unscored is None and choice.score is None:
            unscored = "too_few" if choice.selection.scores else "not_needed"
        chosen = readable & (unscored != "too_few")
        positions = choice.positions[chosen]
        places = np.arange(self.waiting, self.waiting + len(positions), dtype=np.int64)
        trained = places // choice.selection.batch_size if choice.selection.queues or self._queue else 0 * places
        self._ledger.record(
            self.step + 1,
            choice.super_batch,
            positions,
            trained=self.step + 1 + trained,
            selection=choice.selection.label,
            weights=choice.weights[torch.from_numpy(chosen).to(choice.weights.device)],
            loss=choice.loss,
            score=choice.score,
            correct=choice.super_batch.correct,
            unscored=unscored,
            unreadable=choice.positions[~readable],
        )
