"""Losses of candidates that were scored a few steps ago, so that they need not be scored again."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.loaders.index import REMEMBERED, key_hash


@dataclass(frozen=True)
class Split:
    """Which of n candidates need a scoring pass; both positions in the order of the candidates.

    Attributes:
        fresh: int64 (m,), positions of those that do.
        known: int64 (n − m,), positions of those whose loss is remembered.
        losses: float32 (n − m,), nats, of the known ones.
    """

    fresh: Tensor
    known: Tensor
    losses: Tensor

    def merged(self, fresh_losses: Tensor) -> Tensor:
        """float32 (n,): the remembered losses and these of the fresh ones, (m,), on the device of these."""
        device = fresh_losses.device
        losses = torch.empty(len(self.fresh) + len(self.known), device=device)
        losses[self.fresh.to(device)] = fresh_losses.float()
        losses[self.known.to(device)] = self.losses.to(device)
        return losses


class ScoreCache:
    """Remembers the losses of the last steps by key, on the CPU.

    It pays where a sample comes back within `max_age` steps: several epochs over a small corpus, or a stream that
    repeats. The re-used loss is that of an older model, the error of which grows with the age.

    Args:
        max_age: a loss serves while fewer than this many steps have passed since; 1 serves the same step alone.
        capacity: entries at most, of about 240 bytes each; the oldest go first.

    Raises:
        ConfigError: max_age or capacity below 1.
    """

    def __init__(self, max_age: int, capacity: int = 1 << 20) -> None:
        for name, value in (("max_age", max_age), ("capacity", capacity)):
            if value < 1:
                raise ConfigError(f"score cache {name} {value}: give 1 or more")
        self.max_age, self.capacity = max_age, capacity
        # Step and loss by digest of the key, oldest first; a dict would search for its first entry ever longer.
        self._losses: OrderedDict[int, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._losses)

    def split(self, keys: Sequence[str], step: int) -> Split:
        """Which of these candidates need a fresh pass at this step."""
        found = [self._losses.get(_digest(key)) for key in keys]
        known = [i for i, entry in enumerate(found) if entry is not None and step - entry[0] < self.max_age]
        fresh = sorted(set(range(len(keys))).difference(known))
        losses = [entry[1] for i in known if (entry := found[i]) is not None]
        return Split(_column(fresh, torch.int64), _column(known, torch.int64), _column(losses, torch.float32))

    def remember(self, keys: Sequence[str], losses: Tensor, step: int) -> None:
        """Take in fresh losses, float32 (m,), of this step; what is too old to serve is forgotten."""
        for key, loss in zip(keys, losses.tolist(), strict=True):
            digest = _digest(key)
            self._losses[digest] = (step, loss)
            self._losses.move_to_end(digest)
        while self._losses:
            oldest = next(iter(self._losses))
            if len(self._losses) <= self.capacity and step - self._losses[oldest][0] < self.max_age:
                break
            self._losses.popitem(last=False)

    def state_dict(self) -> dict[str, Any]:
        """Three tensors of one length: digests int64, steps int64, losses float32."""
        steps = [step for step, _ in self._losses.values()]
        losses = [loss for _, loss in self._losses.values()]
        return {
            "digests": _column(list(self._losses), torch.int64),
            "steps": _column(steps, torch.int64),
            "losses": _column(losses, torch.float32),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        entries = zip(state["steps"].tolist(), state["losses"].tolist(), strict=True)
        self._losses = OrderedDict(zip(state["digests"].tolist(), entries, strict=True))


def _column(values: Sequence[float], dtype: torch.dtype) -> Tensor:
    """On the CPU, whatever torch's default device is."""
    return torch.tensor(values, dtype=dtype, device="cpu")


def _digest(key: str) -> int:
    """Of 63 bits, which fit into an int64 tensor."""
    return key_hash(key, REMEMBERED) >> 1
