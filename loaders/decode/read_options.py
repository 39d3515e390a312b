"""How images are read: the settings that change speed and tolerance, never the pixels."""

import os
import sys
from dataclasses import dataclass
from typing import Final, Literal

from rhostream.errors import ConfigError
from rhostream.loaders.storage import launched

MAX_AUTO_WORKERS: Final = 16


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How a stream reads its images.

    Attributes:
        threads: images decoded at the same time; 0 takes one per core (of those that torchrun's LOCAL_WORLD_SIZE ranks
            share).
        workers: decoding processes, which share memory with this one, instead of decoding in this process's threads,
            which hold each other up at Python's global lock: on two cores, two processes were measured to decode full
            photographs 1.2 times and 64 px thumbnails twice as fast as two threads. "auto" begins with
            threads, so that little work never pays for starting processes, and goes over to as many processes (16
            at most) once each thread has decoded for half a second; if `threads` is 1 it stays with that one. A
            number starts so many at once; 0 keeps to threads, as does a DataLoader's worker always.
        prefetch: super-batches prepared ahead of the one in use.
        max_unreadable: images which may fail to decode in an epoch (passed over, counted) before it is an error.
        verify: compare the content hash of every sample with its index when this process first reads it; a sample
            that differs counts as unreadable.
        pin_memory: decode into page-locked memory, for fast copies to a GPU.
    """

    threads: int = 0
    workers: int | Literal["auto"] = "auto"
    prefetch: int = 2
    max_unreadable: int = 0
    verify: bool = True
    pin_memory: bool = False

    def __post_init__(self) -> None:
        for name in ("threads", "prefetch", "max_unreadable"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} {getattr(self, name)}: give 0 or more")
        if self.workers != "auto" and self.workers < 0:
            raise ConfigError(f"workers {self.workers}: give 0 or more processes, or 'auto'")

    def decoders(self) -> int:
        """Images decoded at the same time."""
        ranks = launched("LOCAL_WORLD_SIZE", 1)  # of torchrun, on this machine
        return self.threads or max(1, available_cores() // ranks)

    def processes(self) -> int:
        """Decoding processes, in this process; see `workers`."""
        if _is_loader_worker():
            return 0
        if self.workers != "auto":
            return self.workers
        decoders = self.decoders()
        return min(decoders, MAX_AUTO_WORKERS) if decoders > 1 else 0


def _is_loader_worker() -> bool:
    data = sys.modules.get("torch.utils.data")
    return data is not None and data.get_worker_info() is not None


def available_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
