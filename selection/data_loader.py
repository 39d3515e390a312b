"""A selector as a `torch.utils.data.DataLoader`, for trainers that bring their own loop."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from rhostream.errors import ConfigError, RhostreamError
from rhostream.loaders.stream import SuperBatchStream
from rhostream.selection.selected_batch import SelectedBatch
from rhostream.selection.selector import OnlineSelector
from rhostream.selection.source import require_unbatched

_log = logging.getLogger(__name__)

Collate = Callable[[SelectedBatch], Any]


def selected_batch(batch: SelectedBatch) -> SelectedBatch:
    """The batch as it is, weights included."""
    return batch


def images_and_labels(batch: SelectedBatch) -> tuple[Tensor, Tensor]:
    """An exact pair, as timm and most loops want it: float32 (n_b, C, H, W) and the labels of a `Batch`.

    Raises:
        ConfigError: the samples are weighted, and this pair would lose their weights.
    """
    _require_no_weights(batch)
    return batch.images, batch.labels


def pixel_values_and_labels(batch: SelectedBatch) -> dict[str, Tensor]:
    """The inputs of an image classifier of Hugging Face; shapes and errors as of `images_and_labels`."""
    _require_no_weights(batch)
    return {"pixel_values": batch.images, "labels": batch.labels}


def tokens_and_labels(batch: SelectedBatch) -> dict[str, Tensor]:
    """The inputs of a text classifier of Hugging Face: `input_ids`, `attention_mask`, int64 (n_b, longest), `labels`.

    Raises:
        ConfigError: as of `images_and_labels`.
    """
    _require_no_weights(batch)
    return {**batch.fields, "labels": batch.labels}


def _require_no_weights(batch: SelectedBatch) -> None:
    if not bool((batch.weights == 1).all()):
        raise ConfigError(
            "the selected samples are weighted, which samples and labels alone cannot say: give SelectingLoader a "
            "collate that hands batch.weights on, and multiply each sample's loss by its weight"
        )


class _Turn(NamedTuple):
    """One batch: the turn-th super-batch of the rest of a pass over the stream that begins at position `start`.

    `number` is that of the batch in the trainer's epoch.
    """

    epoch: int
    start: int
    turn: int
    number: int


class TurnSampler(DistributedSampler[Any]):
    """What trainers tell the epoch: gives out the turns of the rest of an epoch.

    All ranks take the same turns, each its part of them. This is a DistributedSampler, so that Lightning puts no other
    one in its place and open_clip's `DataInfo` passes the epoch on; and a loader's `batch_sampler`, so that Accelerate
    and the Hugging Face Trainer skip batches without reading them.

    Args:
        epoch_steps: turns of an epoch, which then goes on from where the one before has left the stream; None for one
            pass over the stream.

    Attributes:
        at: epoch and position of the stream where the next turn begins; None while that is where the stream was put,
            and nothing was read.
        done: turns of the present epoch that are over, where `epoch_steps` are given.
    """

    def __init__(self, stream: SuperBatchStream, batch_size: int, epoch_steps: int | None) -> None:
        super().__init__(stream, num_replicas=1, rank=0, shuffle=False)
        self.stream = stream
        self.batch_size = batch_size
        self.drop_last = False
        self.epoch_steps = epoch_steps
        self.at: tuple[int, int] | None = None
        self.done = 0

    @property
    def sampler(self) -> "TurnSampler":
        return self

    @property
    def begins(self) -> tuple[int, int]:
        """Epoch and position of the stream at which the next turn begins."""
        return self.at or self.stream.position

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of this epoch, unless a state in mid-epoch was loaded: its rest comes first."""
        # Whatever the epoch: Lightning counts one that `max_steps` cut short as done, and resumes in its middle.
        if self.epoch_steps is not None:
            if self.at is not None or not self.done:
                rounds = self.stream.rounds()
                of_stream, turn = divmod(epoch * self.epoch_steps, len(rounds))
                self.at, self.done = (of_stream, rounds.bounds(turn)[0]), 0
        elif self.at is not None or self.begins[1] == 0:
            self.at = (epoch, 0)

    def take(self, turn: _Turn) -> bool:
        """This turn is over; returns whether it was the last of the epoch, or of its pass over the stream."""
        rounds = self.stream.rounds(turn.start)
        last = turn.turn == len(rounds) - 1
        self.at = (turn.epoch + 1, 0) if last else (turn.epoch, rounds.after(turn.turn))
        if self.epoch_steps is not None:
            self.done = (turn.number + 1) % self.epoch_steps
            last = last or not self.done
        return last

    def __len__(self) -> int:
        return self.epoch_steps or len(self.stream)

    def __iter__(self) -> Iterator[list[_Turn]]:
        (epoch, start), number = self.begins, self.done
        while number < (self.epoch_steps or 1):
            # None, where too few samples are left.
            for turn in range(len(self.stream.rounds(start))):
                if number == self.epoch_steps:
                    return
                yield [_Turn(epoch, start, turn, number)]
                number += 1
            epoch, start = epoch + 1, 0


class _Selections(Dataset[Any]):
    """The batches of turns. Turns in a row flow through one pass of the selector; any other one is sought in O(1)."""

    def __init__(self, source: Any, selector: OnlineSelector, turns: TurnSampler, collate: Collate) -> None:
        self._source, self._selector, self._turns, self._collate = source, selector, turns, collate
        self._batches: Iterator[SelectedBatch] | None = None
        self._next: _Turn | None = None
        self.repeated = 0

    def __len__(self) -> int:
        return len(self._turns) * self._selector.batch_size

    def __getitems__(self, turns: Sequence[_Turn]) -> Any:
        (at,) = turns
        if self._batches is None or at != self._next:
            self._seek(at)
        batch = self._batch(at)
        if self._turns.take(at):
            self.leave()
        self._next = at._replace(turn=at.turn + 1, number=at.number + 1)
        return batch

    def leave(self) -> None:
        """End the pass that is under way."""
        self._batches = None

    def _seek(self, at: _Turn) -> None:
        self.leave()
        stream, rounds = self._turns.stream, self._turns.stream.rounds(at.start)
        position, _ = rounds.bounds(at.turn)
        stream.load_state_dict(stream.state_at(at.epoch, position))
        if self._selector.step == 0:  # of a run that goes on: its ledger goes on, too
            before = at.epoch * len(stream) + at.start // rounds.size + at.turn
            if before:
                self._selector.go_on_after(before)
        self._batches = iter(self._selector(self._source))
        self._first_turn = at.turn
        self._ahead: SelectedBatch | None = None
        self._last: Any = None

    def _batch(self, at: _Turn) -> Any:
        assert self._batches is not None
        self._ahead = self._ahead or next(self._batches, None)
        if self._ahead is not None:
            assert self._ahead.super_batch is not None
            reached = self._first_turn + self._ahead.super_batch.index == at.turn
            if reached or self._last is None:
                self._last = self._collate(self._ahead)
            if reached:
                self._ahead = None
                return self._last
        if self._last is None:
            raise RhostreamError(
                f"the rest of epoch {at.epoch} has no candidate to train on: every sample was ruled out or is "
                "unreadable; use a milder prefilter, or score the shards again"
            )
        # Trainers count on the length that they were told.
        self.repeated += 1
        _log.warning("epoch %d, turn %d: not two candidates could be read, so a batch is repeated", at.epoch, at.turn)
        return self._last


class SelectingLoader(DataLoader[Any]):
    """Selected batches, as a DataLoader that a trainer takes for its own.

    One iteration is the rest of one epoch, the next one that of the next epoch; `set_epoch` of the loader or of its
    `sampler` (no longer that of the stream) goes to the beginning of any other. It yields exactly `len` batches an
    epoch, of which every rank of a job gets its share; where a super-batch leaves fewer than two candidates to choose
    from, a batch is repeated (counted in `repeated`). Its state is that after the last batch
    yielded, the same on all ranks and for any number of workers. Batches skipped by Accelerate's `skip_first_batches`
    or by a resumed Hugging Face Trainer are not read.

    Args:
        source: a stream, or a `DataLoader(stream, batch_size=None, num_workers=…)`. Selection needs the model, and
            happens in this process.
        selector: chooses, given the model in training.
        collate: makes of a `SelectedBatch` what the trainer wants: `images_and_labels`, `pixel_values_and_labels`,
            `tokens_and_labels`, or a function of your own; by default the batch itself.
        epoch_steps: batches of an epoch, in place of one pass over the stream, which at 32 of 320 has a tenth of an
            ordinary epoch's steps. With that of the trainer before, `stream.samples // 32`, its epochs, schedules and
            warm-ups need no change; candidates go on from epoch to epoch as they would have.

    Raises:
        ConfigError: the source is no stream, and no DataLoader of one; the selector does not choose one batch from
            each super-batch; or `epoch_steps` is not above 0.
    """

    # Accelerate's `prepare` leaves a loader with these marks alone (no second sharding by rank, no dispatching from
    # rank 0: batches are on the model's device already), and keeps its state in `save_state` and `load_state`.
    _is_accelerate_prepared = True
    use_stateful_dataloader = True

    def __init__(
        self,
        source: SuperBatchStream | DataLoader[Any],
        selector: OnlineSelector,
        collate: Collate = selected_batch,
        *,
        epoch_steps: int | None = None,
    ) -> None:
        stream = source.dataset if isinstance(source, DataLoader) else source
        if not isinstance(stream, SuperBatchStream):
            raise ConfigError(f"{type(stream).__name__} is no stream: give a CandidateStream, or a DataLoader of one")
        require_unbatched(source)
        if not selector.one_batch_each:
            raise ConfigError(
                "this selector fills batches from more or less than one super-batch each (a score floor, a share, a "
                "policy), so that a loader could not tell its length: in one process, iterate over selector(stream)"
            )
        if epoch_steps is not None and epoch_steps < 1:
            raise ConfigError(f"epoch_steps {epoch_steps}: give the steps of an epoch, 1 or more")
        self.stream = stream
        self.selector = selector
        turns = self._turns = TurnSampler(stream, selector.batch_size, epoch_steps)
        self._selections = _Selections(source, selector, turns, collate)
        super().__init__(self._selections, batch_sampler=turns, collate_fn=_as_it_is)
        # A DataLoader with a batch sampler tells neither, and forbids to set them; trainers ask for both.
        object.__setattr__(self, "sampler", turns)
        object.__setattr__(self, "batch_size", selector.batch_size // stream.ranks.size)  # of this rank

    @property
    def num_batches(self) -> int:
        """Batches of an epoch, as `len`."""
        return len(self)

    @property
    def num_samples(self) -> int:
        """Samples selected in an epoch, over all ranks; under `Order(last="keep")` the last batch may be shorter."""
        return len(self._selections)

    @property
    def dropped(self) -> int:
        """Candidates of each pass over the stream that nobody gets, see `Order.last`."""
        return self.stream.dropped

    @property
    def repeated(self) -> int:
        """Batches that were repeated so far."""
        return self._selections.repeated

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of this epoch, unless a state in mid-epoch was loaded: its rest comes first."""
        self._turns.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The selector's state, with the position at which the next batch begins."""
        epoch, position = self._turns.begins
        state = {**self.selector.state_dict(), "stream": self.stream.state_at(epoch, position)}
        return state if self._turns.epoch_steps is None else {**state, "epoch_done": self._turns.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly there, in O(1), with any number of ranks or workers.

        Raises:
            WorkspaceError: the state is of another order: other shards, or another seed.
        """
        self.selector.load_state_dict(state, self.stream)
        self._selections.leave()
        self._turns.at, self._turns.done = None, state.get("epoch_done", 0)


def _as_it_is(batch: Any) -> Any:
    return batch
