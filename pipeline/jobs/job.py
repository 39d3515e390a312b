"""The processes that torchrun starts as one job: they meet, go on in step, and speak with one voice."""

import functools
import importlib.metadata
import itertools
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from rhostream.errors import ConfigError, WorkerError
from rhostream.loaders.storage import launched
from rhostream.loaders.stream import Exchange
from rhostream.pipeline.jobs.telling import tells_if

_ours: Final[list[Exchange]] = []  # of the job that this process has joined here
_JOINED: Final = itertools.count()  # how often this process has joined its job: as often as the others
_VERSIONS: Final = ("rhostream", "torch")
_SECONDS_FOR_OTHERS: Final = 2.0
_TOLD: Final = "told"  # in the store: how many processes had something to tell of the job's end


@contextmanager
def joined() -> Iterator[Exchange]:
    """Within the block this process is one of the job that torchrun's variables tell of, or alone without them.

    A process group that the caller has made is used as it is.

    Raises:
        ConfigError: half of the variables are there, or the processes run different versions.
        WorkerError: a process has ended before its work was done.
    """
    if launched("WORLD_SIZE", 1) == 1 or dist.is_initialized():
        # Of ours there is one: who made another one would wait for processes that have ended meanwhile.
        yield _ours[0] if _ours else Exchange()
        return
    needed = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in needed if not os.environ.get(name)]:
        raise ConfigError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} without {missing[0]}: start all processes with torchrun, which "
            "sets both, or unset WORLD_SIZE"
        )
    shared, rank, size = _meeting_place()
    # The store outlives a job's process group, and torchrun's the processes that it starts again; and with it where the
    # former ones were to be found.
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = PrefixStore(f"rhostream/{start}/{next(_JOINED)}", shared)
    tells_if(lambda: _is_first(store, size, holds_store=rank == 0))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    exchange = Exchange()
    if rank:
        logging.getLogger("rhostream").setLevel(logging.ERROR)  # what there is to warn of, the first one tells
    _ours.append(exchange)
    try:
        require_agreement(exchange, {name: importlib.metadata.version(name) for name in _VERSIONS}, "versions")
        yield exchange
    except RuntimeError as error:
        if (said := _lost(error)) is None:
            raise
        raise WorkerError(
            f"another process of the job has ended ({said}): the same command goes on from the last checkpoint"
        ) from error
    finally:
        _ours.clear()
    # Not where an error ends this process: the others are told by its end, sooner than they could take part.
    dist.destroy_process_group()
    tells_if(None)


@functools.cache
def _meeting_place() -> tuple[Any, int, int]:
    """A store that all processes of the job see, this one's rank, and their number. One for as long as it lives: who
    came late to a second one would find the first, as it is about to end."""
    store, rank, size = next(iter(rendezvous("env://", timeout=timedelta(minutes=10))))
    return store, rank, size


def _is_first(store: Any, size: int, *, holds_store: bool) -> bool:
    """Is this the first process that has something to tell? Who may hold the store waits a while for the others to ask,
    as it ends with that process."""
    try:
        first = int(store.add(_TOLD, 1)) == 1
        until = time.monotonic() + _SECONDS_FOR_OTHERS
        while holds_store and time.monotonic() < until and int(store.add(_TOLD, 0)) < size:
            time.sleep(0.01)
        return first
    except RuntimeError:  # the process that holds the store has ended
        return True


def require_agreement(exchange: Exchange, facts: dict[str, Any], what: str) -> None:
    """Raises ConfigError, in every process, where these differ between two of them."""
    told = exchange.objects(facts)
    for rank, theirs in enumerate(told):
        differing = [name for name in {**told[0], **theirs} if told[0].get(name) != theirs.get(name)]
        if differing:
            name = differing[0]
            raise ConfigError(
                f"{what} differ between the ranks: {name} is {told[0].get(name)!r} on rank 0 and {theirs.get(name)!r} "
                f"on rank {rank}; start all of them with the same installation, workspace and settings"
            )


def _lost(error: RuntimeError) -> str | None:
    """What a process group says where a process of it has ended; None for any other error."""
    said = str(error).strip().partition("\n")[0]
    known = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "Timed out waiting")
    told = re.sub(r"^\[[^\]]*\] ?", "", said).partition(". ")[0]  # without where in torch's sources, and its advice
    return told[:200] if isinstance(error, dist.DistError) or any(each in said for each in known) else None
