"""Chosen samples on their way into batches."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from rhostream.errors import RhostreamError
from rhostream.loaders.stream import Exchange, Ranks, SuperBatch
from rhostream.selection.selected_batch import SelectedBatch


class BatchQueue:
    """Chosen samples that wait to fill a batch, and what the next batch tells of the super-batches they came from.

    Every rank of a job knows whose samples wait, and has its own.

    Attributes:
        at: the epoch of the newest super-batch, and the state that the stream continues from after it.
        owners: the ranks of what waits, in its order.
    """

    def __init__(self) -> None:
        self.at: tuple[int, dict[str, Any]] = (0, {})
        self.owners: list[int] = []
        self._parts: list[SelectedBatch] = []
        self._loaded: dict[str, Any] | None = None  # of all ranks, until `share_out`
        self._considered: list[SuperBatch] = []
        self._unreadable = 0
        self._newest: SuperBatch | None = None

    def __len__(self) -> int:
        """Samples that wait, over all ranks."""
        return len(self.owners)

    def add(
        self, super_batch: SuperBatch, chosen: SelectedBatch | None, owners: Sequence[int], unreadable: int
    ) -> None:
        """Add what was chosen from a super-batch.

        Args:
            super_batch: of all ranks.
            chosen: this rank's.
            owners: the ranks of all.
            unreadable: how many were chosen beside these and could not be read.
        """
        self._newest, self.at = super_batch, (super_batch.epoch, super_batch.state)
        # Of those that have completed no batch all but the newest give their pixels back: there may be many.
        self._considered = [*(considered.without_images() for considered in self._considered), super_batch]
        self._unreadable += unreadable
        self.owners.extend(owners)
        if chosen is not None:
            self._parts.append(chosen)

    def take(self, size: int, ranks: Ranks) -> SelectedBatch:
        """This rank's of the first samples, so many over all ranks, with their fields as they were decoded.

        Where the shares are uneven, as of some that could not be read, the weights make up for it: the mean over the
        ranks of their means is that of the batch.

        Raises:
            RhostreamError: a rank has no sample among them.
        """
        of_ranks = np.bincount(self.owners[:size], minlength=ranks.size)
        if not of_ranks.all():
            raise RhostreamError(
                f"a batch of {size} samples leaves nothing for {int((of_ranks == 0).sum())} of {ranks.size} ranks: too "
                "many of the chosen cannot be read; give a larger batch_size, or fewer ranks"
            )
        places = None if ranks.size == 1 else np.flatnonzero(np.array(self.owners[:size]) == ranks.rank)
        mine = int(of_ranks[ranks.rank])
        batch = SelectedBatch.concat(self._parts)
        self._parts, self.owners = [], self.owners[size:]
        if len(batch) > mine:
            batch, rest = batch.split(mine)
            self._parts = [rest]
        epoch, state = self.at
        considered, unreadable = tuple(self._considered), self._unreadable
        self._considered, self._unreadable = [], 0
        return replace(
            batch,
            weights=batch.weights if mine * ranks.size == size else batch.weights * (mine * ranks.size / size),
            epoch=epoch,
            state=state,
            super_batch=self._newest,
            considered=considered,
            unreadable=unreadable,
            places=places,
        )

    def state_dict(self, ranks: Ranks, exchange: Exchange) -> dict[str, Any] | None:
        """The samples that wait, of all ranks; None where there are none. To be called on every rank."""
        if self._loaded is not None or not self.owners:
            return self._loaded
        own = SelectedBatch.concat(self._parts).state_dict() if self._parts else None
        if ranks.size == 1:
            return own
        of_ranks = dict(reversed([told for told in exchange.objects((ranks.rank, own)) if told[1] is not None]))
        cpu = torch.device("cpu")
        parts = {rank: SelectedBatch.from_state_dict(part, cpu) for rank, part in of_ranks.items()}
        starts, start = {}, 0
        for rank, part in parts.items():
            starts[rank], start = start, start + len(part)
        order = []
        for owner in self.owners:
            order.append(starts[owner])
            starts[owner] += 1
        return SelectedBatch.concat(list(parts.values())).take(np.array(order)).state_dict()

    def load_state_dict(self, waiting: dict[str, Any] | None, at: tuple[int, dict[str, Any]]) -> None:
        self._parts, self._loaded = [], waiting
        self.owners = [0] * len(waiting["labels"]) if waiting else []
        self._considered, self._unreadable, self._newest, self.at = [], 0, None, at

    def share_out(self, ranks: Ranks, device: torch.device) -> None:
        """Take this rank's of the samples that were loaded."""
        if self._loaded is None:
            return
        waiting = SelectedBatch.from_state_dict(self._loaded, device)
        self._loaded, self.owners = None, [at % ranks.size for at in range(len(waiting))]
        mine = np.arange(ranks.rank, len(waiting), ranks.size)
        self._parts = [waiting.take(mine)] if len(mine) else []
