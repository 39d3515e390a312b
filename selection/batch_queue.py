"""Chosen samples on their way into batches."""

from dataclasses import replace
from typing import Any

import torch

from rhostream.loaders.stream import SuperBatch
from rhostream.selection.selected_batch import SelectedBatch


class BatchQueue:
    """Chosen samples that wait to fill a batch, and what the next batch tells of the super-batches they came from.

    Attributes:
        at: the epoch of the newest super-batch, and the state that the stream continues from after it.
    """

    def __init__(self) -> None:
        self.at: tuple[int, dict[str, Any]] = (0, {})
        self._parts: list[SelectedBatch] = []
        self._considered: list[SuperBatch] = []
        self._unreadable = 0
        self._newest: SuperBatch | None = None

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def add(self, super_batch: SuperBatch, chosen: SelectedBatch | None, unreadable: int) -> None:
        """Add what was chosen from a super-batch.

        Args:
            unreadable: how many were chosen beside these and could not be read.
        """
        self._newest, self.at = super_batch, (super_batch.epoch, super_batch.state)
        # Of those that have completed no batch all but the newest give their pixels back: there may be many.
        self._considered = [*(considered.without_images() for considered in self._considered), super_batch]
        self._unreadable += unreadable
        if chosen is not None:
            self._parts.append(chosen)

    def take(self, size: int) -> SelectedBatch:
        """The first samples, so many, with their fields as they were decoded."""
        batch = SelectedBatch.concat(self._parts)
        self._parts = []
        if len(batch) > size:
            batch, rest = batch.split(size)
            self._parts = [rest]
        epoch, state = self.at
        considered, unreadable = tuple(self._considered), self._unreadable
        self._considered, self._unreadable = [], 0
        return replace(
            batch, epoch=epoch, state=state, super_batch=self._newest, considered=considered, unreadable=unreadable
        )

    def state_dict(self) -> dict[str, Any] | None:
        """The samples that wait; None where there are none."""
        return SelectedBatch.concat(self._parts).state_dict() if self._parts else None

    def load_state_dict(
        self, waiting: dict[str, Any] | None, at: tuple[int, dict[str, Any]], device: torch.device
    ) -> None:
        self._parts = [SelectedBatch.from_state_dict(waiting, device)] if waiting else []
        self._considered, self._unreadable, self._newest, self.at = [], 0, None, at
