"""Super-batches of one or several corpora, in an order that ranks, workers and interruptions do not change."""

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from rhostream.errors import ConfigError, WorkspaceError
from rhostream.loaders.decode import (
    Augmentation,
    Failures,
    InputReader,
    InputSpec,
    PendingInputs,
    ReadOptions,
    StoredRefs,
    TextSpec,
)
from rhostream.loaders.index import CorpusMetadata, take_lists
from rhostream.loaders.reference import PairReference
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream.candidate_reader import Candidates
from rhostream.loaders.stream.candidate_table import EMBEDDINGS, CandidateTable
from rhostream.loaders.stream.order import Order, Rounds
from rhostream.loaders.stream.position import StreamPosition
from rhostream.loaders.stream.ranks import Chunks, Ranks, distributed
from rhostream.loaders.stream.stored_ids import StoredIds
from rhostream.loaders.stream.super_batch import FullImages, Part, SuperBatch, Tolerance, shared_reader
from rhostream.loaders.stream.targets import make_targets


class SuperBatchStream(IterableDataset[SuperBatch]):
    """What every stream of super-batches does; which candidates stand where is up to its subclasses.

    Args:
        workspace: the tars' names are relative to it.
        super_batch_size: n_B of the job.
        seed: of the order and the augmentation.
        spec: of the images or texts to train on.
        scoring_spec: of those to score; `spec` where no thumbnails are read.
        text_spec: of the captions of pairs; None of all else.
        ranks: that share out each super-batch; those of the process group, or of torchrun's variables, where None.
    """

    corpus: CorpusMetadata

    def __init__(
        self,
        *,
        workspace: Workspace,
        super_batch_size: int,
        seed: int,
        spec: InputSpec,
        scoring_spec: InputSpec,
        text_spec: TextSpec | None = None,
        augmentation: Augmentation,
        order: Order,
        read_options: ReadOptions,
        ranks: Ranks | None,
    ) -> None:
        if super_batch_size < 1:
            raise ConfigError(f"super_batch_size {super_batch_size}: at least one candidate is needed")
        self.workspace = workspace
        self.super_batch_size = super_batch_size
        self.seed = seed
        self.spec = spec
        self.scoring_spec = scoring_spec
        self.text_spec = text_spec
        #: How embeddings that are joined become losses; None where none are.
        self.reference: PairReference | None = None
        self.augmentation: Augmentation = augmentation
        self.order = order
        self.read_options = read_options
        #: Are candidates ruled out by their IL passed over, where a prefilter was given? May change while streaming.
        self.prefiltering = True
        self._given_ranks, self._ranks_found = ranks, distributed()
        #: Which candidates' pixels are read: those that this rank scores; where other ranks score, none or all.
        self.reads: Literal["its part", "nothing", "everything"] = "its part"
        self._position = StreamPosition()
        self._reader: InputReader | None = None

    @property
    def ranks(self) -> Ranks:
        """Those that share out each super-batch, and this one's own."""
        if self._given_ranks is not None:
            return self._given_ranks
        self._ranks_found = distributed(default=self._ranks_found)
        return self._ranks_found

    @property
    @abstractmethod
    def samples(self) -> int:
        """Candidates of an epoch, over all ranks."""

    @property
    @abstractmethod
    def order_digest(self) -> str:
        """Identifies all that the order depends on beside seed and epoch."""

    @abstractmethod
    def read(self, epoch: int, first: int, last: int, *, prefiltering: bool = True) -> Candidates:
        """The candidates at positions [first, last) of the epoch's global sequence, their images not yet read.

        Returns:
            The candidates to read, and those passed over.
        """

    def __len__(self) -> int:
        """Super-batches of a whole epoch."""
        return len(self.rounds())

    @property
    def dropped(self) -> int:
        """Samples of each epoch that nobody gets: other ones in each, see `Order.last`."""
        return self.rounds().dropped

    def set_epoch(self, epoch: int) -> None:
        """Continue at the beginning of this epoch.

        A state in its middle that was loaded, and not read on from, stays: trainers set the epoch after resuming, too.
        """
        self._position.set_epoch(epoch)

    @property
    def position(self) -> tuple[int, int]:
        """Epoch and position of the next super-batch, where no DataLoader's workers have read on."""
        return self._position.now

    def state_dict(self, num_samples: int | None = None, from_beginning: bool = False) -> dict[str, Any]:
        """Where the next super-batch begins. Small numbers and texts only.

        In a worker of a DataLoader: where that worker's next one begins, for StatefulDataLoader.

        Args:
            num_samples: point there instead where so many candidates (over all ranks) have been given out: since the
                beginning of the epoch, or since where this stream is now.
            from_beginning: which of the two.

        Raises:
            ConfigError: a DataLoader's workers have read on, and this process cannot know how far.
        """
        if num_samples is not None:
            epoch, position = self._position.now
            return self.state_at(epoch, num_samples if from_beginning else position + num_samples)
        if get_worker_info() is None:
            return self.state_at(*self._position.known)
        epoch, position, turn = self._position.of_worker
        return {**self.state_at(epoch, position), "turn": turn}

    def state_at(self, epoch: int, position: int) -> dict[str, Any]:
        """The state that points to this position of an epoch."""
        return {"epoch": epoch, "position": position, "seed": self.seed, "order": self.order_digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state` (of `state_dict`, or `SuperBatch.state`) points, in O(1).

        Raises:
            WorkspaceError: the state is of other shards, another seed or block size, whose order is another one.
            ConfigError: it is the state of one worker of a DataLoader, and this is none; or no state of a stream.
        """
        if missing := {"epoch", "position", "seed", "order"} - state.keys():
            raise ConfigError(
                f"a state without {', '.join(sorted(missing))} is not one of a stream: give what "
                "`state_dict` returned, or a SuperBatch's `state`"
            )
        for name, expected in (("order", self.order_digest), ("seed", self.seed)):
            if state[name] != expected:
                raise WorkspaceError(
                    f"this stream's {name} is {expected}, the state's is {state[name]}: it was saved "
                    "by a run over other shards or with another seed, and cannot be continued here"
                )
        self._position.load(state["epoch"], state["position"], state.get("turn"))

    def __iter__(self) -> Iterator[SuperBatch]:
        epoch, position, first, stride = self._position.begin()
        for turn, batch in self._turns(epoch, position, first, stride):
            self._position.give_out(turn, (batch.state["epoch"], batch.state["position"]), stride)
            yield batch

    def every(self, stride: int, epoch: int, position: int) -> Iterator[SuperBatch]:
        """One of so many super-batches from there on, to the epoch's end; where this stream is stays as it is."""
        for _, batch in self._turns(epoch, position, 0, stride):
            yield batch

    def _turns(self, epoch: int, position: int, first: int, stride: int) -> Iterator[tuple[int, SuperBatch]]:
        rounds = self.rounds(position)
        if not len(rounds):
            epoch, rounds = epoch + 1, self.rounds()
        maker = _Maker(self, epoch, rounds)
        # One thread reads ahead, in order; the decoders work for it.
        with ThreadPoolExecutor(1, thread_name_prefix="rhostream-read") as executor:
            pending: deque[tuple[int, Future[_PendingSuperBatch]]] = deque()
            turns = iter(range(first, len(rounds), stride))
            try:
                while True:
                    while len(pending) <= self.read_options.prefetch and (turn := next(turns, None)) is not None:
                        pending.append((turn, executor.submit(maker.begin, turn, self.prefiltering)))
                    if not pending:
                        break
                    turn, future = pending.popleft()
                    yield turn, maker.finish(future.result())
            finally:
                for _, future in pending:
                    future.cancel()

    def rounds(self, start: int = 0) -> Rounds:
        """The turns from this position of an epoch on, each with one super-batch."""
        # A corpus that does not fill one super-batch gives what it has.
        size = min(self.super_batch_size, self.samples)
        return Rounds(start=start, total=self.samples, size=size, last=self.order.last)

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker has no process group: it is told the ranks of its parent.
        return {**self.__dict__, "_reader": None, "_ranks_found": self.ranks}


@dataclass(frozen=True, kw_only=True)
class _PendingSuperBatch:
    """A super-batch whose samples are being read; `read` are the positions of those in it, None for all.

    Attributes:
        captions: the token ids of all pairs; None of other samples.
    """

    turn: int
    candidates: CandidateTable
    passed_over: CandidateTable
    chunks: Chunks
    read: npt.NDArray[np.int64] | None
    inputs: PendingInputs
    captions: PendingInputs | None = None


class _Maker:
    """Makes the super-batches of the rest of one epoch."""

    def __init__(self, stream: SuperBatchStream, epoch: int, rounds: Rounds) -> None:
        self._stream, self._epoch, self._rounds = stream, epoch, rounds
        self._ranks = stream.ranks
        if stream.spec.field != "image" and stream.reads != "its part":
            raise ConfigError("scorers of texts: these are scored by the processes that train; leave scorers out")
        self._read_options = read_options_here(stream.read_options)
        # Held by the stream, so that its threads and processes live from one epoch to the next.
        self._reader = stream._reader = shared_reader(stream.workspace, self._read_options)
        self._tolerance = Tolerance(self._read_options.max_unreadable)

    def begin(self, turn: int, prefiltering: bool) -> _PendingSuperBatch:
        stream, bounds = self._stream, self._rounds.bounds(turn)
        candidates, passed_over = stream.read(self._epoch, *bounds, prefiltering=prefiltering)
        chunks = Chunks.of(len(candidates), stream.order.chunk_size, self._ranks.size)
        refs, read = candidates.refs["thumbnail" if "thumbnail" in candidates.refs else stream.spec.field], None
        if chunks.count > 1 or self._ranks.size > 1 or stream.reads != "its part":
            read = chunks.positions(self._ranks.rank)
            read = read[:0] if stream.reads == "nothing" else read
            refs = refs.take(read)
        inputs: PendingInputs
        captions: PendingInputs | None = None
        if stream.text_spec is not None:
            inputs = self._reader.submit(refs, stream.scoring_spec, stream.augmentation)
            captions = (
                StoredIds(candidates.tokens)
                if candidates.tokens is not None
                else self._reader.tokenize(candidates.texts or [], stream.text_spec)
            )
        elif candidates.tokens is not None:
            inputs = StoredIds(candidates.tokens if read is None else take_lists(candidates.tokens, read))
        else:
            inputs = self._reader.submit(refs, stream.scoring_spec, stream.augmentation)
        return _PendingSuperBatch(
            turn=turn,
            candidates=candidates,
            passed_over=passed_over,
            chunks=chunks,
            read=read,
            inputs=inputs,
            captions=captions,
        )

    def finish(self, pending: _PendingSuperBatch) -> SuperBatch:
        """Raises ShardError where more images than are tolerated cannot be read."""
        stream, candidates = self._stream, pending.candidates
        found, failures = pending.inputs.result()
        field, texts = stream.spec.field, pending.inputs.texts if pending.read is None else None
        specs = {field: stream.scoring_spec}
        captions: dict[str, torch.Tensor] = {}
        if pending.captions is not None and stream.text_spec is not None:
            specs["text"] = stream.text_spec
            captions["text"] = torch.from_numpy(pending.captions.result()[0])
            texts = list(map(str, candidates.texts or []))
        embeddings = {name: torch.from_numpy(candidates.extra[name]) for name in EMBEDDINGS if name in candidates.extra}
        others = {name: column for name, column in candidates.extra.items() if name not in embeddings}
        with_originals = "thumbnail" in candidates.refs and "image" in candidates.refs
        done = pending.turn == len(self._rounds) - 1
        epoch, position = (self._epoch + 1, 0) if done else (self._epoch, self._rounds.after(pending.turn))
        stored = torch.from_numpy(found)
        super_batch = SuperBatch(
            fields={field: stored if pending.read is None else stored[:0].clone(), **captions},
            labels=make_targets(candidates.labels, len(stream.corpus.classes)),
            il=None if candidates.il is None else torch.from_numpy(candidates.il),
            candidates=replace(candidates, refs={}, texts=texts, tokens=None, extra=others),
            passed_over=pending.passed_over,
            specs=specs,
            epoch=self._epoch,
            index=pending.turn,
            first=self._rounds.bounds(pending.turn)[0],
            size=self._rounds.size,
            state=stream.state_at(epoch, position),
            left_over=self._rounds.dropped if done else 0,
            full=self._reader_of(candidates.refs["image"], stream.spec) if with_originals else None,
            reference=stream.reference if embeddings else None,
            image_embedding=embeddings.get("image_embedding"),
            text_embedding=embeddings.get("text_embedding"),
        )
        if pending.read is not None:
            super_batch = self._part(super_batch, stored, pending)
        return self._without_unreadable(super_batch, failures) if failures else super_batch

    def _part(self, whole: SuperBatch, stored: torch.Tensor, pending: _PendingSuperBatch) -> SuperBatch:
        """What this rank has read of a super-batch, whose other candidates any rank may be asked to train on."""
        assert pending.read is not None
        refs, spec, field = pending.candidates.refs, self._stream.scoring_spec, self._stream.spec.field
        scored = self._reader_of(refs["thumbnail" if "thumbnail" in refs else field], spec) if refs else None
        part = Part(
            whole=replace(whole, full=None),
            chunks=pending.chunks,
            rank=self._ranks.rank,
            positions=pending.read,
            images={} if scored is None else {field: whole.full or scored, "thumbnail": scored},
        )
        without = replace(whole, fields={name: each for name, each in whole.fields.items() if name != field}, part=None)
        mine = without.take(pending.read)
        return replace(mine, fields={field: stored, **mine.fields}, part=part)

    def _reader_of(self, refs: StoredRefs, spec: InputSpec) -> FullImages:
        stream = self._stream
        return FullImages(
            workspace=stream.workspace,
            refs=refs,
            spec=spec,
            augmentation=stream.augmentation,
            read_options=self._read_options,
        )

    def _without_unreadable(self, super_batch: SuperBatch, failures: Failures) -> SuperBatch:
        candidates = super_batch.candidates
        for position, cause in failures:
            self._tolerance.count(candidates.keys[position], candidates.shards[position], cause)
        unreadable = [position for position, _ in failures]
        return super_batch.without_unreadable(np.setdiff1d(np.arange(len(candidates)), unreadable))


def read_options_here(read_options: ReadOptions) -> ReadOptions:
    """The settings for this process: the workers of a DataLoader share out the cores, and pin no memory."""
    worker = get_worker_info()
    if worker is None:
        return read_options
    return replace(
        read_options,
        threads=read_options.threads or max(1, read_options.decoders() // worker.num_workers),
        pin_memory=False,
    )
