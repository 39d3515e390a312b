"""Page-locked super-batches. CUDA's part is played: no GPU is needed to see in which order which one is asked."""

import gc
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from rhostream.errors import RhostreamError
from rhostream.loaders.decode.buffers import BufferPool


class Played:
    """Eight GPUs, of which this process uses some; asking another one makes a context there.

    Attributes:
        contexts: GPUs that this process uses.
        copying: GPUs to which copies are under way.
        locked: bytes at each address.
    """

    def __init__(self, *contexts: int) -> None:
        self.contexts, self.copying, self.locked = set(contexts), set[int](), dict[int, int]()
        self._thread = threading.local()

    @property
    def current(self) -> int:
        device: int = getattr(self._thread, "device", 0)
        return device

    def asked(self) -> int:
        self.contexts.add(self.current)
        return self.current

    @contextmanager
    def device(self, number: int) -> Iterator[None]:
        before, self._thread.device = self.current, number
        yield
        self._thread.device = before

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802
        self.asked()
        if size > 1 << 20:
            return 2
        self.locked[address] = size
        return 0

    def synchronize(self, number: int) -> None:
        self.contexts.add(number)
        self.copying.discard(number)

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
        self.asked()
        assert not self.copying
        del self.locked[address]
        return 0

    def play(self, patch: pytest.MonkeyPatch) -> "Played":
        class Event:
            def record(self) -> None:
                self.of = played.asked()

            def query(self) -> bool:
                assert played.asked() == self.of
                return self.of not in played.copying

        played = self
        parts = {
            "is_available": lambda: True,
            "device_count": lambda: 8,
            "current_device": lambda: self.current,
            "device": self.device,
            "cudart": lambda: self,
            "synchronize": self.synchronize,
            "Event": Event,
        }
        for name, part in parts.items():
            patch.setattr(torch.cuda, name, part)
        patch.setattr(torch._C, "_cuda_hasPrimaryContext", lambda number: number in self.contexts, raising=False)
        return self


def address(images: np.ndarray) -> int:
    return int(images.__array_interface__["data"][0])


@pytest.mark.slow
def test_whole_pages_are_locked_and_unlocked_with_the_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Played().play(monkeypatch)
    pool = BufferPool(shared=True, pinned=True)
    buffer, array = pool.take(50_000)
    (start,) = cuda.locked
    assert start % mmap.PAGESIZE == 0
    assert start <= address(array)
    assert address(array) + 50_000 <= start + cuda.locked[start]
    with pytest.raises(RhostreamError, match="page-lock"):
        pool.take(2 << 20)
    del buffer, array, pool
    gc.collect()
    assert cuda.locked == {}


@pytest.mark.parametrize("copying", [3, 5])
def test_memory_is_reused_only_after_its_gpu_copies_ended(monkeypatch: pytest.MonkeyPatch, copying: int) -> None:
    cuda = Played(3, 5).play(monkeypatch)
    pool = BufferPool(shared=True, pinned=True)
    first, array = pool.take(50_000)
    cuda.copying.add(copying)
    del array
    second = pool.take(50_000)[0]
    assert second.number != first.number
    cuda.copying.clear()
    assert pool.take(50_000)[0].number == first.number


@pytest.mark.slow
@pytest.mark.parametrize("copying", [3, 5])
def test_memory_is_given_up_only_after_its_gpu_copies_ended(monkeypatch: pytest.MonkeyPatch, copying: int) -> None:
    cuda = Played(3, 5).play(monkeypatch)
    pool = BufferPool(shared=True, pinned=True)
    buffer, array = pool.take(50_000)
    cuda.copying.add(copying)
    del buffer, array, pool
    gc.collect()
    assert cuda.locked == {}
    assert cuda.contexts == {3, 5}


@pytest.mark.slow
def test_a_fork_forgetting_its_parents_locked_memory_asks_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Played(3).play(monkeypatch)
    pool = BufferPool(shared=False, pinned=True)
    buffer, array = pool.take(50_000)
    del array
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    del buffer, pool
    gc.collect()
    assert len(cuda.locked) == 1


@pytest.mark.slow
def test_threads_without_a_chosen_gpu_touch_no_other_ranks_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Played(3).play(monkeypatch)

    def take_and_drop() -> None:
        pool = BufferPool(shared=True, pinned=True)
        for _ in range(3):
            pool.take(50_000)

    thread = threading.Thread(target=take_and_drop)
    thread.start()
    thread.join()
    gc.collect()
    assert cuda.locked == {}
    assert cuda.contexts == {3}
