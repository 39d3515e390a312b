"""Replay: the batches that an earlier run selected, for another model to train on."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from rhostream.errors import ConfigError, WorkspaceError
from rhostream.loaders.decode import Augmentation, InputSpec, PendingInputs, ReadOptions
from rhostream.loaders.index import CorpusMetadata, Thumbnails
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import (
    CandidateTable,
    StoredRows,
    Tolerance,
    distributed,
    make_targets,
    read_options_here,
    shared_reader,
)
from rhostream.selection.ledger import LedgerReader, LedgerRows
from rhostream.selection.selected_batch import SelectedBatch


class ReplayStream(IterableDataset[SelectedBatch]):
    """The very batches that an earlier run was trained on, in its order, straight from its ledger.

    No candidate is read that was not selected, and nothing is scored: a sweep of twenty models pays for one selection
    (as ClassAct re-uses training sequences: Evans et al., arXiv 2312.05328). One iteration is the rest of the run.
    Use it as it is, or in a `DataLoader(stream, batch_size=None, num_workers=…)`.

    Under torchrun each rank gets its share of every batch, whatever number of ranks the earlier run had. Memory does
    not grow with the run or the corpus, and `load_state_dict` goes on at any step without reading those before it.

    Args:
        workspace: where the run lies, and the corpus that it was trained on.
        run: name of the earlier run.
        steps: how many of its steps; all that it was to take where None.
        spec: of the images or texts to train on; the manifest's where None.
        thumbnails: name of exact thumbnails to read in place of the images, or None.
        augmentation, seed: as of `CandidateStream`. With those of the earlier run the images are the same, too.
        extra: further columns of the index to carry along.
        device: where the batches are put; in a DataLoader with workers leave it on the CPU.
        read_options: see `ReadOptions`.

    Raises:
        WorkspaceError: there is no such run, its ledger is incomplete, or it is of another corpus.
        ConfigError: it took fewer steps than are asked for; or the thumbnails are not exact.
    """

    def __init__(
        self,
        workspace: Workspace | str | os.PathLike[str],
        run: str,
        *,
        steps: int | None = None,
        spec: InputSpec | None = None,
        thumbnails: str | None = None,
        augmentation: Augmentation = "none",
        seed: int = 0,
        extra: tuple[str, ...] = (),
        device: torch.device | str = "cpu",
        read_options: ReadOptions = ReadOptions(),
    ) -> None:
        self.workspace, self.run = Workspace(workspace), run
        self.corpus = CorpusMetadata.read(self.workspace)
        self.spec = spec or self.corpus.input_spec()
        self.augmentation: Augmentation = augmentation
        self.seed, self.device, self.read_options = seed, torch.device(device), read_options
        if thumbnails and not Thumbnails.read(self.workspace, self.corpus, thumbnails).shows(self.spec):
            raise ConfigError(f"thumbnails {thumbnails!r} are not exact for {self.spec}: a replay scores nothing")
        self._thumbnails, self._extra = thumbnails, extra
        self._ledger = LedgerReader(self.workspace, run)
        #: The steps to replay, from 1 on.
        self.steps = self._steps(steps)
        self._next = 1

    def __len__(self) -> int:
        """Batches of the whole run."""
        return self.steps

    @property
    def digest(self) -> str:
        """Identifies the sequence: the run, its corpus, how many steps."""
        made_of = [self.run, self.corpus.fingerprint, self._ledger.ranks, self.steps]
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch is; of a DataLoader's workers only the `state` of a batch can tell."""
        return self._state_before(self._next)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state`, of `state_dict` or a batch, points.

        Raises:
            WorkspaceError: it is of another sequence.
        """
        if state.get("replay") != self.digest:
            raise WorkspaceError(
                f"this replay of run {self.run!r} is {self.digest}, the state is of {state.get('replay')}: it was "
                "saved by a replay of another run, or of other steps"
            )
        self._next = state["step"]

    def __iter__(self) -> Iterator[SelectedBatch]:
        worker = get_worker_info()
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        maker = _Maker(self)
        batches = islice(self._ledger.batches(self._next), first, self.steps - self._next + 1, stride)
        # One thread reads the ledger ahead, in order; the decoders work for it.
        with ThreadPoolExecutor(1, thread_name_prefix="rhostream-replay") as executor:
            pending: deque[Future[_PendingBatch | None]] = deque()
            try:
                while True:
                    while len(pending) <= self.read_options.prefetch:
                        pending.append(executor.submit(maker.begin, batches))
                    begun = pending.popleft().result()
                    if begun is None:
                        self._next = self.steps + 1
                        return
                    batch = maker.finish(begun)
                    self._next = begun.rows.step + 1
                    yield batch
            finally:
                for future in pending:
                    future.cancel()

    def _steps(self, asked: int | None) -> int:
        facts_file, there = f"runs/{self.run}/run.json", self._ledger.steps
        facts = self.workspace.read_json(facts_file) if self.workspace.exists(facts_file) else {}
        of = facts.get("corpus_fingerprint", self.corpus.fingerprint)
        if of != self.corpus.fingerprint:
            raise WorkspaceError(
                f"run {self.run!r} was trained on another corpus or split ({of}, this one is "
                f"{self.corpus.fingerprint}): it cannot be replayed"
            )
        budget = facts.get("steps", there)
        if asked is None and there < budget:
            raise WorkspaceError(
                f"the ledger of run {self.run!r} ends at step {there} of {budget}: finish the run before it is replayed"
            )
        if asked is not None and not 0 < asked <= min(there, budget):
            raise ConfigError(f"run {self.run!r} has {min(there, budget)} steps to replay, asked for {asked}")
        return asked or budget

    def _state_before(self, step: int) -> dict[str, Any]:
        return {"step": step, "replay": self.digest}


@dataclass(frozen=True, kw_only=True)
class _PendingBatch:
    """A batch whose samples are being read."""

    rows: LedgerRows
    candidates: CandidateTable
    inputs: PendingInputs


class _Maker:
    """Makes the batches of one iteration."""

    def __init__(self, stream: ReplayStream) -> None:
        self._stream = stream
        options = read_options_here(stream.read_options)
        self._reader = shared_reader(stream.workspace, options)
        self._tolerance, self._epoch = Tolerance(options.max_unreadable), -1
        self._allowed = options.max_unreadable
        self._stored = StoredRows(
            stream.workspace,
            stream.corpus.split("train"),
            classes=len(stream.corpus.classes),
            extra=stream._extra,
            field=stream.spec.field,
            thumbnails=stream._thumbnails,
            augmentation=stream.augmentation,
            seed=stream.seed,
            verify=options.verify,
        )

    def begin(self, batches: Iterator[LedgerRows]) -> _PendingBatch | None:
        """Begin to read the next batch; None after the last one."""
        rows = next(batches, None)
        if rows is None:
            return None
        rank, ranks = distributed()
        share = slice(rank, None, ranks)
        if len(rows.keys) < ranks:
            raise ConfigError(f"step {rows.step} has {len(rows.keys)} samples for {ranks} ranks: use fewer ranks")
        candidates = self._stored.read(rows.shards[share], rows.rows[share], rows.keys[share], rows.epoch)
        inputs = self._reader.submit(
            candidates.refs[self._stream.spec.field], self._stream.spec, self._stream.augmentation
        )
        return _PendingBatch(rows=rows, candidates=candidates, inputs=inputs)

    def finish(self, pending: _PendingBatch) -> SelectedBatch:
        """Raises ShardError where more images of an epoch than are tolerated cannot be read."""
        stream, candidates, rows = self._stream, pending.candidates, pending.rows
        found, failures = pending.inputs.result()
        candidates, stored = replace(candidates, texts=pending.inputs.texts), torch.from_numpy(found)
        if rows.epoch != self._epoch:
            self._tolerance, self._epoch = Tolerance(self._allowed), rows.epoch
        if failures:
            for position, cause in failures:
                self._tolerance.count(candidates.keys[position], candidates.shards[position], cause)
            unreadable = [position for position, _ in failures]
            readable = np.setdiff1d(np.arange(len(candidates)), unreadable)
            candidates, stored = candidates.take(readable), stored[torch.from_numpy(readable)]
        labels = make_targets(candidates.labels, len(stream.corpus.classes)).to(stream.device)
        return SelectedBatch(
            fields=stream.spec.inputs(stream.spec.field, stored.to(stream.device)),
            labels=labels,
            weights=torch.ones(len(candidates), device=stream.device),
            il=None,
            correct=None,
            candidates=replace(candidates, refs={}),
            specs={stream.spec.field: stream.spec},
            epoch=rows.epoch,
            state=stream._state_before(rows.step + 1),
            unreadable=len(failures),
        )
