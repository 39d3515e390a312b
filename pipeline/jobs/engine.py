"""Who works on the units of a stage: processes of this machine, actors of a Ray cluster, or jobs started by others."""

import os
import socket
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from rhostream.errors import ConfigError
from rhostream.loaders.decode import available_cores
from rhostream.loaders.storage import launched
from rhostream.pipeline.config import EngineName

_NAMES: Final = ("local", "ray", "static")
_SECONDS_TO_ANSWER: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How units are shared out. The result does not depend on it.

    Attributes:
        name: "local" for processes of this machine, "ray" for actors of the cluster that `RAY_ADDRESS` names (else of
            one that is started on this machine), "static" for a job that does its share alone.
        workers: processes or actors; 0 works in this process, None takes one per core.
        rank, ranks: of a static job among all: each makes the units whose number leaves `rank` over `ranks`.
    """

    name: EngineName = "local"
    workers: int | None = None
    rank: int = 0
    ranks: int = 1

    @property
    def processes(self) -> int:
        """Of this machine; 0 where this process works itself."""
        return available_cores() if self.workers is None else self.workers

    @property
    def is_shared(self) -> bool:
        """Does this job make only some of the units, while others may make the rest?"""
        return self.name == "static"

    def makes(self, number: int) -> bool:
        """Is the unit of this number one that this job makes?"""
        return number % self.ranks == self.rank


def chosen_engine(name: EngineName = "local", workers: int | None = None) -> Engine:
    """The engine of this name; a static one is told its share by `RANK` and `WORLD_SIZE`.

    Raises:
        ConfigError: there is no such engine, a static one is not told its share, or nothing answers at `RAY_ADDRESS`.
        ModuleNotFoundError: Ray is not installed.
    """
    if name not in _NAMES:
        raise ConfigError(f"engine {name!r}: choose {', '.join(_NAMES)}")
    if name == "ray":
        if find_spec("ray") is None:
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        _require_answer(os.environ.get("RAY_ADDRESS", ""))
    if name != "static":
        return Engine(name=name, workers=workers)
    if missing := [variable for variable in ("RANK", "WORLD_SIZE") if not os.environ.get(variable)]:
        raise ConfigError(
            f"--engine static: {' and '.join(missing)} not set: start it by torchrun, or set RANK to the number of "
            "this job, from 0 on, and WORLD_SIZE to the number of jobs (in a Slurm array $SLURM_ARRAY_TASK_ID and "
            "$SLURM_ARRAY_TASK_COUNT)"
        )
    rank, ranks = launched("RANK", 0), launched("WORLD_SIZE", 1)
    if rank >= ranks:
        raise ConfigError(f"--engine static: RANK={rank} of WORLD_SIZE={ranks}: jobs count from 0")
    return Engine(name=name, workers=workers, rank=rank, ranks=ranks)


def _require_answer(address: str) -> None:
    """Ray itself would try for a minute, after the corpus was listed.

    Raises:
        ConfigError: nothing listens at this `host:port`.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        return  # none, or a word of Ray's own
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER):
            return
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"RAY_ADDRESS={address}: nothing answers there ({error}): correct it to HOST:PORT of the cluster's head, "
            "or unset it to start a cluster on this machine"
        ) from error
