"""Which processes of a job share out each super-batch, and how."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch.distributed

from rhostream.errors import ConfigError
from rhostream.loaders.storage import launched

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class Ranks(NamedTuple):
    """The data-parallel ranks of a job and this process's own; its tensor- or pipeline-parallel peers have the same."""

    rank: int = 0
    size: int = 1


def distributed(default: Ranks | None = None) -> Ranks:
    """Of this process, each process of the job being a data-parallel rank of its own."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())
    if default is not None or "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return default or Ranks()
    ranks = Ranks(launched("RANK", 0), launched("WORLD_SIZE", 1))
    if ranks.rank >= ranks.size:
        raise ConfigError(
            f"RANK={ranks.rank} of WORLD_SIZE={ranks.size}: ranks count from 0; start all with torchrun, or unset both"
        )
    return ranks


def given_ranks(dp_rank: int | None, dp_world_size: int | None, mesh: "DeviceMesh | None") -> Ranks | None:
    """The data-parallel ranks that a trainer names; None where it names none.

    Args:
        mesh: its data-parallel dimensions, `mesh["dp"]`; the first one counts slowest.

    Raises:
        ConfigError: half of them, both ways at once, or numbers that are no rank of so many.
    """
    if mesh is not None:
        at = mesh.get_coordinate()
        if at is None or (dp_rank, dp_world_size) != (None, None):
            why = "this process is not in it" if at is None else "it says what dp_rank and dp_world_size would"
            raise ConfigError(f"mesh {mesh}: {why}; give the data-parallel dimensions of the job's mesh, mesh['dp']")
        return Ranks(int(np.ravel_multi_index(at, mesh.shape)), mesh.size())
    if dp_rank is None and dp_world_size is None:
        return None
    if dp_rank is None or dp_world_size is None or not 0 <= dp_rank < dp_world_size:
        raise ConfigError(f"dp_rank {dp_rank} of dp_world_size {dp_world_size}: give both, ranks count from 0")
    return Ranks(dp_rank, dp_world_size)


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """How the candidates of a super-batch are shared out.

    Chunk j of k holds every k-th candidate, from the j-th on, and goes to rank j mod R. Every rank scores as many
    chunks, of at least two candidates where there are as many: where the chunks do not go round, some are scored twice.

    Attributes:
        candidates: how many there are.
        count: of chunks, k.
        ranks: R.
    """

    candidates: int
    count: int
    ranks: int

    @classmethod
    def of(cls, candidates: int, chunk_size: int | None, ranks: int) -> "Chunks":
        """One chunk for each rank, or as many as there are of this size at most: then ranks change no chunk."""
        count = ranks if chunk_size is None else -(-candidates // chunk_size)
        return cls(candidates=candidates, count=max(1, min(count, candidates // 2)), ranks=ranks)

    def scored_by(self, rank: int) -> list[int]:
        """The numbers of the chunks that a rank scores."""
        return [(rank + turn * self.ranks) % self.count for turn in range(self.passes)]

    @property
    def passes(self) -> int:
        """Chunks that each rank scores."""
        return -(-self.count // self.ranks)

    def positions(self, rank: int) -> npt.NDArray[np.int64]:
        """int64: the candidates that a rank scores, chunk after chunk."""
        every = [np.arange(chunk, self.candidates, self.count) for chunk in dict.fromkeys(self.scored_by(rank))]
        return np.concatenate(every)

    def holders(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """int64, of each of these candidates: the rank that it goes to."""
        held: npt.NDArray[np.int64] = positions % self.count % self.ranks
        return held
