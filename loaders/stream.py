"""The stream of candidates: shards joined with the IL table, as super-batches."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed
from torch.utils.data import IterableDataset, get_worker_info

from rhostream.errors import ConfigError, ShardError, WorkspaceError
from rhostream.loaders.augmentation import Augmentation
from rhostream.loaders.batch import PassedOver, SuperBatch
from rhostream.loaders.block import Block, JoinSettings, load_block
from rhostream.loaders.index import CorpusCard, Shard
from rhostream.loaders.join import Prefilter, open_il_table
from rhostream.loaders.order import EpochOrder, Order, Rounds
from rhostream.loaders.reader import ImageReader
from rhostream.loaders.view import View
from rhostream.loaders.workspace import Workspace

MAX_WORKERS = 1024  # of a DataLoader


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How images are read.

    Attributes:
        threads: decoding threads of each process; 0 takes as many as there are cores.
        prefetch: super-batches prepared ahead of the one in use.
        max_unreadable: images which may fail to decode in an epoch (passed over, counted) before it is an error.
    """

    threads: int = 0
    prefetch: int = 2
    max_unreadable: int = 0


class CandidateStream(IterableDataset[SuperBatch]):
    """Candidates for online selection, each with its irreducible loss, as super-batches B_t of n_B.

    Use it as it is, or in a `DataLoader(stream, batch_size=None, num_workers=…)`. One iteration is the rest of one
    epoch; the next one is that of the next epoch, which with workers must be said by `set_epoch`. The order
    is a function of (seed, epoch) and the index: the same global sequence for any number of ranks and workers, every
    sample once an epoch, and every rank the same number of super-batches.

    Args:
        workspace: where `rho shards` wrote.
        il: an IL table: its name in the workspace, or the path of a Parquet with columns key and il. None joins none.
        super_batch_size: n_B of this rank.
        seed: of the order and the augmentation.
        shards: what to read; all shards of the split "train" where None.
        view: the pixels to make; the manifest's where None.
        augmentation: see `rhostream.loaders.augmentation`; drawn from (seed, epoch, key).
        prefilter: rules candidates out by their IL before they are read.
        on_missing: "drop" passes over samples without a finite IL; by default they are an error.
        extra: further columns of the index to carry along.
        order, reading: finer settings.

    Raises:
        WorkspaceError: `rho shards` has not finished there, or there are no such shards.
        IrreducibleLossError: the IL table does not serve these shards.
    """

    def __init__(
        self,
        workspace: Workspace | str | os.PathLike[str],
        *,
        il: str | None = None,
        super_batch_size: int = 320,
        seed: int = 0,
        shards: tuple[Shard, ...] | None = None,
        view: View | None = None,
        augmentation: Augmentation = "none",
        prefilter: Prefilter | None = None,
        on_missing: Literal["error", "drop"] = "error",
        extra: tuple[str, ...] = (),
        order: Order = Order(),
        reading: Reading = Reading(),
    ) -> None:
        if super_batch_size < 1:
            raise ConfigError(f"super_batch_size {super_batch_size}: at least one candidate is needed")
        if prefilter is not None and il is None:
            raise ConfigError("a prefilter rules candidates out by their irreducible loss: name an IL table with il=")
        self.workspace = Workspace(workspace)
        self.card = CorpusCard.read(self.workspace)
        self.shards = self.card.split("train") if shards is None else shards
        if not self.shards:
            raise WorkspaceError(
                f"workspace {self.workspace.location!r} has no shards to stream: `rho shards` put "
                f"{self.card.counts} there"
            )
        self.view = view or self.card.view()
        self.super_batch_size = super_batch_size
        self.seed = seed
        self.augmentation: Augmentation = augmentation
        self.extra = extra
        self.order = order
        self.reading = reading
        table = open_il_table(self.workspace, self.card, il) if il is not None else None
        self._join = JoinSettings(
            table=table, prefilter=prefilter, on_missing=on_missing, classes=len(self.card.classes)
        )
        # All that the order depends on beside seed and epoch.
        made_of = [self.order.block_shards, *((shard.name, shard.rows, shard.digest) for shard in self.shards)]
        self._order_digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
        self._rank, self._ranks = _distributed()
        # Shared with the processes of a DataLoader, so that `set_epoch` reaches workers that persist.
        self._at = torch.zeros(2, dtype=torch.int64).share_memory_()  # epoch, position
        self._passed = torch.full((MAX_WORKERS,), -1, dtype=torch.int64).share_memory_()  # epoch done by each worker

    def __len__(self) -> int:
        """Super-batches of a whole epoch on this rank."""
        return len(self._rounds(start=0))

    @property
    def dropped(self) -> int:
        """Samples of each epoch that no rank gets (only with `remainder="drop"`)."""
        return self._rounds(start=0).dropped

    def set_epoch(self, epoch: int) -> None:
        """Continue at the beginning of this epoch."""
        self._go_to(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """Where the next super-batch begins. Small numbers and texts only."""
        epoch, position = self._at.tolist()
        return self._state(epoch, position)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state` (of `state_dict`, or `SuperBatch.state`) points, in O(1).

        Raises:
            WorkspaceError: the state is of other shards, another seed or block size, whose order is another one.
        """
        for name in ("order", "seed"):
            expected = self._state(0, 0)[name]
            if state[name] != expected:
                raise WorkspaceError(
                    f"this stream's {name} is {expected}, the state's is {state[name]}: it was saved "
                    "by a run over other shards or with another seed, and cannot be continued here"
                )
        self._go_to(state["epoch"], state["position"])

    def __iter__(self) -> Iterator[SuperBatch]:
        self._rank, self._ranks = _distributed(default=(self._rank, self._ranks))
        epoch, position = self._at.tolist()
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker and self._passed[worker.id] == epoch:
            raise ConfigError(
                f"epoch {epoch} has been streamed already: call stream.set_epoch(epoch) before each pass over a "
                "DataLoader with workers, or it would repeat the same order"
            )
        rounds = self._rounds(position)
        if not len(rounds):  # too few samples were left for this number of ranks
            epoch, rounds = epoch + 1, self._rounds(start=0)
        assembler = _Assembler(self, epoch)
        # One thread assembles ahead, in order; the decoding threads work for it.
        with ThreadPoolExecutor(1, thread_name_prefix="rhostream-assemble") as executor:
            pending: deque[tuple[int, Future[SuperBatch]]] = deque()
            turns = iter(range(first, len(rounds), stride))
            try:
                while True:
                    while len(pending) <= self.reading.prefetch and (turn := next(turns, None)) is not None:
                        pending.append((turn, executor.submit(assembler.super_batch, rounds, turn)))
                    if not pending:
                        break
                    turn, future = pending.popleft()
                    batch = future.result()
                    if not worker:
                        self._go_to(batch.state["epoch"], batch.state["position"])
                    yield batch
            finally:
                for _, future in pending:
                    future.cancel()
                assembler.close()
        if worker:
            self._passed[worker.id] = epoch

    def epoch_order(self, epoch: int) -> EpochOrder:
        """The global sequence of one epoch."""
        rows = [shard.rows for shard in self.shards]
        return EpochOrder(rows, seed=self.seed, epoch=epoch, block_shards=self.order.block_shards)

    def _rounds(self, start: int) -> Rounds:
        total = sum(shard.rows for shard in self.shards)
        ranks = self._ranks if self.order.shard_by_rank else 1
        if total < ranks:
            raise ConfigError(f"{total} samples cannot be shared out to {ranks} ranks: use fewer ranks")
        return Rounds(start=start, total=total, size=self.super_batch_size, ranks=ranks, remainder=self.order.remainder)

    def _state(self, epoch: int, position: int) -> dict[str, Any]:
        return {"epoch": epoch, "position": position, "seed": self.seed, "order": self._order_digest}

    def _go_to(self, epoch: int, position: int) -> None:
        self._at.copy_(torch.tensor([epoch, position]))
        self._passed.fill_(-1)


class _Assembler:
    """Makes the super-batches of one epoch: looks rows up in their block, reads and decodes their images."""

    def __init__(self, stream: CandidateStream, epoch: int) -> None:
        self._stream, self._epoch = stream, epoch
        self._order = stream.epoch_order(epoch)
        self._images = ImageReader(stream.workspace, stream.view, stream.reading.threads)
        self._blocks: dict[int, Block] = {}
        self._unreadable = 0

    def close(self) -> None:
        self._images.close()

    def super_batch(self, rounds: Rounds, turn: int) -> SuperBatch:
        stream = self._stream
        rank = stream._rank if stream.order.shard_by_rank else 0
        first, last = rounds.bounds(turn, rank)
        pieces = []
        while first < last:
            number, start = self._order.block_at(first)
            block = self._block(number)
            stop = min(last, start + len(block.order))
            pieces.append(self._piece(block, block.order[first - start : stop - start]))
            first = stop
        merged = pieces[0] if len(pieces) == 1 else _merged(pieces)
        after = rounds.after(turn)
        done = turn == len(rounds) - 1
        state = stream._state(self._epoch + 1, 0) if done else stream._state(self._epoch, after)
        return SuperBatch(
            epoch=self._epoch,
            index=turn * rounds.ranks + rank,
            size=stream.super_batch_size,
            state=state,
            view=stream.view,
            **merged,
        )

    def _block(self, number: int) -> Block:
        if number not in self._blocks:
            self._blocks = {kept: block for kept, block in self._blocks.items() if kept == number - 1}
            shards = [self._stream.shards[shard] for shard in self._order.shards_of(number)]
            stream = self._stream
            self._blocks[number] = load_block(
                stream.workspace, shards, self._order.rows_of(number), stream._join, stream.extra
            )
        return self._blocks[number]

    def _piece(self, block: Block, picked: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, Any]:
        verdict = block.verdict[picked]
        wanted = picked[verdict == None]  # noqa: E711 - elementwise
        keys = block.keys.take(wanted).to_pylist()
        stream = self._stream
        images, failures = self._images.images(
            [block.shards[number] for number in block.shard_numbers[wanted]],
            block.offsets[wanted],
            block.sizes[wanted],
            augmentation=stream.augmentation,
            draws=[f"{stream.seed}/{self._epoch}/{key}" for key in keys] if stream.augmentation != "none" else None,
        )
        for position, reason in failures:
            self._refuse(keys[position], block.shards[block.shard_numbers[wanted[position]]], reason)
        reasons = dict(zip(picked[verdict != None], verdict[verdict != None], strict=True))  # noqa: E711
        reasons.update({wanted[position]: "unreadable" for position, _ in failures})
        if failures:
            whole = np.ones(len(wanted), bool)
            whole[[position for position, _ in failures]] = False
            wanted, images = wanted[whole], images[whole]
            keys = [key for key, good in zip(keys, whole, strict=True) if good]
        return {
            "keys": keys,
            "shards": [block.shards[number].name for number in block.shard_numbers[wanted]],
            "rows": block.rows[wanted],
            "labels": torch.from_numpy(block.labels[wanted].astype(np.int64)),
            "images": torch.from_numpy(images),
            "il": None if block.il is None else torch.from_numpy(block.il[wanted]),
            "extra": {name: column[wanted] for name, column in block.extra.items()},
            "passed_over": tuple(_passed_over(block, int(row), reason) for row, reason in reasons.items()),
        }

    def _refuse(self, key: str, shard: Shard, reason: str) -> None:
        self._unreadable += 1
        allowed = self._stream.reading.max_unreadable
        if self._unreadable > allowed:
            raise ShardError(
                f"sample {key} of {shard.tar} does not decode ({reason}); {self._unreadable} so far in this "
                f"epoch, {allowed} are allowed: the shard was damaged after it was written; delete its "
                "index and run `rho shards` again, or raise max_unreadable"
            )


def _passed_over(block: Block, row: int, reason: str) -> PassedOver:
    il = None if block.il is None or not np.isfinite(block.il[row]) else float(block.il[row])
    return PassedOver(
        key=block.keys[row].as_py(),
        shard=block.shards[block.shard_numbers[row]].name,
        row=int(block.rows[row]),
        label=int(block.labels[row]),
        il=il,
        reason=reason,
        extra={name: column[row] for name, column in block.extra.items()},
    )


def _merged(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """A super-batch that straddles blocks, from its pieces."""
    il = [piece["il"] for piece in pieces]
    shared = [name for name in pieces[0]["extra"] if all(name in piece["extra"] for piece in pieces)]
    return {
        "keys": [key for piece in pieces for key in piece["keys"]],
        "shards": [shard for piece in pieces for shard in piece["shards"]],
        "rows": np.concatenate([piece["rows"] for piece in pieces]),
        "labels": torch.cat([piece["labels"] for piece in pieces]),
        "images": torch.cat([piece["images"] for piece in pieces]),
        "il": None if il[0] is None else torch.cat(il),
        "extra": {name: np.concatenate([piece["extra"][name] for piece in pieces]) for name in shared},
        "passed_over": tuple(row for piece in pieces for row in piece["passed_over"]),
    }


def _distributed(default: tuple[int, int] = (0, 1)) -> tuple[int, int]:
    """(rank, number of ranks) of this process; a DataLoader's worker inherits those of its parent."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    if default != (0, 1):
        return default
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
