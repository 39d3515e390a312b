"""Candidates whose images have not been read yet: the one record that a row travels in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rhostream.loaders.decode import ImageRefs
from rhostream.loaders.stream.super_batch import PassedOver


@dataclass(frozen=True, kw_only=True)
class CandidateTable:
    """Candidates whose images have not been read yet; columns of length n.

    Attributes:
        images: the images to score.
        originals: the full-size ones behind them, where thumbnails is read that is not exact; else None.
        passed_over: candidates drawn with these and not to be read.
    """

    keys: list[str]
    shards: list[str]
    rows: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    il: npt.NDArray[np.float32] | None
    extra: dict[str, npt.NDArray[Any]]
    images: ImageRefs
    originals: ImageRefs | None
    passed_over: list[PassedOver]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, positions: npt.NDArray[np.int64]) -> "CandidateTable":
        """Those at these positions, in this order, and all that are passed over."""
        return CandidateTable(
            keys=[self.keys[position] for position in positions],
            shards=[self.shards[position] for position in positions],
            rows=self.rows[positions],
            labels=self.labels[positions],
            il=None if self.il is None else self.il[positions],
            extra={name: column[positions] for name, column in self.extra.items()},
            images=self.images.take(positions),
            originals=None if self.originals is None else self.originals.take(positions),
            passed_over=self.passed_over,
        )

    def pass_over(self, position: int, reason: str) -> PassedOver:
        """The candidate at this position as one that is passed over."""
        return PassedOver(
            key=self.keys[position],
            shard=self.shards[position],
            row=int(self.rows[position]),
            label=int(self.labels[position]),
            il=None if self.il is None else float(self.il[position]),
            reason=reason,
            extra={name: column[position] for name, column in self.extra.items()},
        )

    @classmethod
    def concatenated(cls, parts: Sequence["CandidateTable"]) -> "CandidateTable":
        """All of them; of the extra columns those that every part has."""
        if len(parts) == 1:
            return parts[0]
        il = [part.il for part in parts if part.il is not None]
        originals = [part.originals for part in parts if part.originals is not None]
        shared = [name for name in parts[0].extra if all(name in part.extra for part in parts)]
        return cls(
            keys=[key for part in parts for key in part.keys],
            shards=[shard for part in parts for shard in part.shards],
            rows=np.concatenate([part.rows for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
            il=np.concatenate(il) if il else None,
            extra={name: np.concatenate([part.extra[name] for part in parts]) for name in shared},
            images=ImageRefs.concatenated([part.images for part in parts]),
            originals=ImageRefs.concatenated(originals) if originals else None,
            passed_over=[candidate for part in parts for candidate in part.passed_over],
        )
