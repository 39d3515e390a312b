"""Ranks that score for the ranks that learn: the paper's parallel selection (arXiv 2206.07137, section 3)."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from rhostream.errors import ConfigError, OtherRankError
from rhostream.loaders.stream import Exchange, Part, Ranks, SuperBatch, SuperBatchStream
from rhostream.selection.scoring.candidate_scores import ROW, CandidateScores
from rhostream.selection.scoring.candidates import Scores
from rhostream.selection.scoring.functions import SelectionFunction

#: Seconds, CPU-seconds and FLOPs.
Spent = tuple[float, float, float]

_SCORE, _END = 1, 0  # what a scorer is asked to do
_FAILED, _KNOWS_CORRECT = 1, 2  # bits of what it answers
_HEAD: Final = np.dtype([("bits", "u1"), ("spent", "<f8", 3)])
_MOST_TOLD: Final = 2000  # bytes of an error


class RemoteScorers:
    """Has super-batches scored by other ranks in turn, under the weights of the moment when they are asked to.

    Of the learners the first one sends the weights, and tells the others what the scorers answer. Whoever is early
    waits.

    Args:
        weights: the model's state, whole; asked of all learners at once.
        ranks: of the scorers.
        learners: what the learners tell one another by.
        group: of all processes.
        charge: is told what a scorer has spent.
    """

    def __init__(
        self,
        weights: Callable[[], Mapping[str, Tensor]],
        ranks: range,
        learners: Exchange,
        group: Any,
        charge: Callable[[Spent], None],
    ) -> None:
        self.learners = learners
        self._weights, self._ranks, self._group, self._charge = weights, ranks, group, charge
        self._asked = 0

    def begin(
        self, super_batch: SuperBatch, function: SelectionFunction, step: int, scoring: CandidateScores
    ) -> Callable[[], Scores]:
        """Ask for the scores of a super-batch, of which this rank has read nothing; returns what waits for them."""
        assert super_batch.part is not None
        if function.of_pairs:
            raise ConfigError(f"scorers with select {function.name!r}: ranks that learn score pairs; leave scorers out")
        scorer = self._ranks[self._asked % len(self._ranks)]
        self._asked += 1
        weights, message = _flat(self._weights()), None
        if self.learners.rank == 0:
            question = torch.tensor([_SCORE, super_batch.epoch, super_batch.first, step], dtype=torch.int64)
            message = _Message(question, weights, _size(super_batch.part), scorer, self._group)
        # A checkpoint asks for it, too, and there is but one answer.
        return cache(partial(self._answer, super_batch, super_batch.part, function, scorer, message, scoring))

    def end(self) -> None:
        """Let the scorers go."""
        for scorer in self._ranks if self.learners.rank == 0 else ():
            dist.send(torch.tensor([_END, 0, 0, 0], dtype=torch.int64), scorer, group=self._group)

    def _answer(
        self,
        super_batch: SuperBatch,
        part: Part,
        function: SelectionFunction,
        scorer: int,
        message: "_Message | None",
        scoring: CandidateScores,
    ) -> Scores:
        def receive() -> bytes:
            return b"" if message is None else message.answer()

        ranks = Ranks(part.rank, part.chunks.ranks)
        told = self.learners.together(ranks, receive, _size(part))[0]
        head, body = np.frombuffer(told, _HEAD, 1)[0], told[_HEAD.itemsize :]
        if head["bits"] & _FAILED:
            raise OtherRankError(f"rank {scorer} has failed ({body.rstrip(bytes(1)).decode(errors='replace')})")
        if self.learners.rank == 0:
            self._charge(tuple(head["spent"].tolist()))
        found = np.frombuffer(body, ROW, len(part.whole)).copy()
        losses, correct = bool(function.needs - {"il"}), bool(head["bits"] & _KNOWS_CORRECT)
        return scoring.told(super_batch, part, found, losses=losses, correct=correct)


class _Message:
    """A question to a scorer, on its way with the weights to answer by, and the place that waits for the answer.

    The place is there from the start, because gloo sends nothing that nobody waits for. Else a scorer would take no
    other question before the learner comes for the answer, and a learner that has more to ask first would wait forever.

    Args:
        question: int64 (4,).
        weights: float32 (n,).
        size: bytes of the answer.
    """

    def __init__(self, question: Tensor, weights: Tensor, size: int, scorer: int, group: Any) -> None:
        self._sent = question, weights  # tensors live until they have arrived
        self._told = torch.empty(size, dtype=torch.uint8)
        self._works = [dist.isend(each, scorer, group=group) for each in self._sent]
        self._works.append(dist.irecv(self._told, scorer, group=group))

    def answer(self) -> bytes:
        for work in self._works:
            if work is not None:
                work.wait()
        return self._told.numpy().tobytes()


def serve_scores(
    model: nn.Module,
    stream: SuperBatchStream,
    scoring: CandidateScores,
    function: SelectionFunction,
    *,
    scorers: int,
    group: Any,
    spent: Callable[[], Spent],
) -> None:
    """Score what the first learner asks for, until it asks for no more.

    Args:
        model: is given the weights that come with each question.
        stream: reads all candidates of a super-batch.
        scorers: how many there are: of so many super-batches one is for this one, so far it reads ahead.
        spent: since it was last asked.
    """
    stream.reads = "everything"
    device = next(model.parameters()).device
    ahead: Iterator[SuperBatch] | None = None
    due: tuple[int, int] | None = None
    question, weights = torch.empty(4, dtype=torch.int64), _flat(model.state_dict())
    while True:
        dist.recv(question, 0, group=group)
        what, epoch, first, step = question.tolist()
        if what == _END:
            return
        dist.recv(weights, 0, group=group)
        _take_over(model, weights)
        if ahead is None or due != (epoch, first):
            ahead = stream.every(scorers, epoch, first)
        try:
            super_batch = next(ahead)
            due = (epoch, first + scorers * super_batch.size)
            scores = scoring.score(super_batch.to(device), function, step)
        except Exception as error:
            told = f"{type(error).__name__}: {error}".encode()[:_MOST_TOLD]
            _send(_FAILED, spent(), told, _rows_of(stream, epoch, first), group)
            raise
        assert super_batch.part is not None
        rows, bits = _rows(scores, super_batch.part)
        _send(bits, spent(), rows, len(super_batch.part.whole), group)


def _rows(scores: Scores, part: Part) -> tuple[bytes, int]:
    """What is found of the candidates of the whole, as rows of `ROW`, and the bits to go with them."""
    found = np.zeros(len(part.whole), ROW)
    at = scores.positions
    found["readable"][at] = True
    scored = scores.scored
    columns = {"score": scores.score, "il": scores.super_batch.il}
    if scored is not None:
        columns |= {"loss": scored.losses, "correct": scored.correct}
    for name, values in columns.items():
        if values is not None:
            found[name][at] = values.cpu().numpy()
    return found.tobytes(), _KNOWS_CORRECT if scored is not None and scored.correct is not None else 0


def _rows_of(stream: SuperBatchStream, epoch: int, first: int) -> int:
    """Candidates to be read of a super-batch that could not be."""
    to_read, _ = stream.read(epoch, *stream.rounds(first).bounds(0), prefiltering=stream.prefiltering)
    return len(to_read)


def _send(bits: int, spent: Spent, body: bytes, rows: int, group: Any) -> None:
    head = np.zeros(1, _HEAD)
    head["bits"], head["spent"] = bits, spent
    message = (head.tobytes() + body).ljust(_size_of(rows), bytes(1))
    dist.send(torch.frombuffer(bytearray(message), dtype=torch.uint8), 0, group=group)


def _size(part: Part) -> int:
    return _size_of(len(part.whole))


def _size_of(rows: int) -> int:
    return _HEAD.itemsize + max(rows * ROW.itemsize, _MOST_TOLD)


def _floats(state: Mapping[str, Tensor]) -> list[Tensor]:
    return [value for value in state.values() if value.is_floating_point()]


def _flat(state: Mapping[str, Tensor]) -> Tensor:
    """float32 (n,), on the CPU: weights and running statistics, one after the other."""
    return torch.cat([value.detach().flatten().float().cpu() for value in _floats(state)])


@torch.no_grad()
def _take_over(model: nn.Module, weights: Tensor) -> None:
    values = _floats(model.state_dict())
    for value, new in zip(values, weights.split([value.numel() for value in values]), strict=True):
        value.copy_(new.view(value.shape))
