"""Page-locked memory, from which CUDA copies at full speed and in the background.

Only GPUs that this process uses are asked: what one does on another GPU, be it to ask after an event, makes a context
there, which takes half a gigabyte of a GPU that belongs to another rank. And which GPU is a thread's current one says
nothing: a thread that was started begins with the first.
"""

import os
import weakref
from collections.abc import Callable
from typing import Final

import torch

from rhostream.errors import RhostreamError

_PORTABLE: Final = 1  # cudaHostRegisterPortable: for all GPUs


def lock_pages(owner: object, address: int, size: int) -> None:
    """For as long as `owner` exists, where CUDA is there; its end waits for the copies that are under way.

    Raises:
        RhostreamError: the system gives no more such memory.
    """
    if not torch.cuda.is_available():
        return
    device = (_devices() or [torch.cuda.current_device()])[0]
    with torch.cuda.device(device):
        status = int(torch.cuda.cudart().cudaHostRegister(address, size, _PORTABLE))
    if status != 0:
        raise RhostreamError(
            f"CUDA cannot page-lock {size} bytes (error {status}): choose a smaller super-batch or "
            "prefetch, or pin_memory=False"
        )
    weakref.finalize(owner, _unlock, os.getpid(), device, address).atexit = False


def copies_ended() -> Callable[[], bool]:
    """Have the copies ended that were begun on the streams which are current in this thread, of every GPU?"""
    events = []
    for device in _devices():
        with torch.cuda.device(device):
            event = torch.cuda.Event()
            event.record()
        events.append((device, event))

    def ended() -> bool:
        for device, event in events:
            with torch.cuda.device(device):
                if not event.query():
                    return False
        return True

    return ended


def _devices() -> list[int]:
    """Those on which this process has a context."""
    return [number for number in range(torch.cuda.device_count()) if torch._C._cuda_hasPrimaryContext(number)]


def _unlock(pid: int, device: int, address: int) -> None:
    if os.getpid() != pid:
        return  # a fork has locked nothing, and CUDA would refuse to be asked there
    for number in _devices():
        torch.cuda.synchronize(number)  # the memory goes next: no copy may still read it
    with torch.cuda.device(device):
        torch.cuda.cudart().cudaHostUnregister(address)
