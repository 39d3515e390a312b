"""Page-locked super-batches and a GPU that copies from them late: no pixel is overwritten before it has arrived."""

import gc
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from helpers.gpu import DEVICE, needs_gpu
from helpers.tiny import write_il, write_workspace
from torch import nn
from torch.utils.data import DataLoader

from rhostream.loaders import CandidateStream, ImageSpec, ReadOptions, SuperBatch
from rhostream.loaders.decode import page_lock
from rhostream.loaders.decode.buffers import BufferPool
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.thumbnails.write import write_thumbnails
from rhostream.pipeline.training.picture_grid import picture_grids
from rhostream.selection import OnlineSelector

pytestmark = needs_gpu

SIDE, SMALL, SUPER_BATCH = 48, 16, 50
EPOCHS = 6
LATE = 20_000_000  # cycles that the GPU is busy before each copy: some 10 ms, in which a super-batch is decoded
UNLOCKED = ReadOptions(threads=1, workers=0)
PINNED = {
    "threads": ReadOptions(threads=4, workers=0, pin_memory=True),
    "processes": ReadOptions(workers=2, pin_memory=True),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Epochs of eight super-batches."""
    workspace = write_workspace(tmp_path_factory.mktemp("w"), (150, 150, 100), side=SIDE)
    write_il(workspace)
    write_thumbnails(workspace, ThumbnailsConfig(size=SMALL, format="raw", workers=0))
    return workspace


def stream_of(workspace: Workspace, read_options: ReadOptions = UNLOCKED, **settings: Any) -> CandidateStream:
    return CandidateStream(
        workspace, il="strided_cnn", super_batch_size=SUPER_BATCH, read_options=read_options, **settings
    )


def epochs(stream: Iterable[SuperBatch]) -> Iterator[SuperBatch]:
    for _ in range(EPOCHS):
        yield from stream


def pixels_of(workspace: Workspace, **settings: Any) -> dict[str, torch.Tensor]:
    """Of every sample by key, read once and without page-locked memory."""
    return {
        key: image.clone()
        for batch in stream_of(workspace, **settings)
        for key, image in zip(batch.keys, batch.images, strict=True)
    }


def sent_late(stream: Iterable[SuperBatch], sent: int = 8) -> Iterator[tuple[list[str], torch.Tensor]]:
    """Keys and pixels that arrived on the GPU, which is kept busy so that up to `sent` copies are still under way."""
    waiting: list[tuple[list[str], torch.Tensor]] = []
    for batch in epochs(stream):
        torch.cuda._sleep(LATE)
        waiting.append((batch.keys, batch.images.to(DEVICE, non_blocking=True)))
        if len(waiting) == sent:
            yield from waiting  # who looks at the pixels waits for them
            waiting = []
    yield from waiting


def arrived(found: Iterable[tuple[list[str], torch.Tensor]], expected: dict[str, torch.Tensor]) -> list[bool]:
    """For each super-batch, are its pixels those expected?"""
    return [torch.equal(images.cpu(), torch.stack([expected[key] for key in keys])) for keys, images in found]


@pytest.fixture
def locks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of all memory that was page-locked."""
    sizes: list[int] = []
    lock = page_lock.lock_pages

    def noting(owner: object, address: int, size: int) -> None:
        lock(owner, address, size)
        sizes.append(size)

    monkeypatch.setattr(page_lock, "lock_pages", noting)
    return sizes


@pytest.mark.parametrize("read_options", PINNED.values(), ids=PINNED)
def test_pixels_arrive_whole_while_their_memory_is_used_again(
    made: Workspace, read_options: ReadOptions, locks: list[int]
) -> None:
    found = arrived(sent_late(stream_of(made, read_options)), pixels_of(made))
    assert found == [True] * EPOCHS * 8
    assert 0 < len(locks) < len(found)


def test_memory_that_is_used_again_too_early_would_be_noticed(made: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_lock, "copies_ended", lambda: lambda: True)
    assert not all(arrived(sent_late(stream_of(made, PINNED["threads"])), pixels_of(made)))


@pytest.mark.parametrize("read_options", PINNED.values(), ids=PINNED)
def test_super_batches_are_page_locked_only_where_options_say_so(made: Workspace, read_options: ReadOptions) -> None:
    assert all(batch.images.is_pinned() for batch in stream_of(made, read_options))
    assert not any(batch.images.is_pinned() for batch in stream_of(made))


def test_memory_given_up_during_a_copy_is_waited_for() -> None:
    count = 8 << 20
    for round_ in range(10):
        pool = BufferPool(shared=bool(round_ % 2), pinned=True)
        buffer, array = pool.take(count)
        array[:] = round_ + 1
        torch.cuda._sleep(LATE)
        copy = torch.from_numpy(array).to(DEVICE, non_blocking=True)
        del buffer, array, pool
        gc.collect()
        taken = np.full(count, 255, np.uint8)  # memory that has just become free
        assert int(copy.min()) == int(copy.max()) == round_ + 1
        del taken


def test_a_loaders_processes_hand_over_super_batches_that_it_locks(made: Workspace) -> None:
    torch.zeros((), device=DEVICE)  # the processes are forked from one that uses the GPU
    loader = DataLoader(stream_of(made, PINNED["threads"]), batch_size=None, num_workers=2, pin_memory=True)
    pinned = []

    def noting() -> Iterator[SuperBatch]:
        for batch in loader:
            pinned.append(batch.images.is_pinned() and batch.labels.is_pinned())
            yield batch

    expected = pixels_of(made)
    found = [(batch.keys, batch.images.to(DEVICE, non_blocking=True)) for batch in noting()]
    assert arrived(found, expected) == [True] * 8
    assert pinned == [True] * 8


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3)
    ).to(DEVICE)


@pytest.mark.parametrize(
    ("thumbnails", "score_ahead"),
    [(None, False), (None, True), (f"{SMALL}-raw", False), (f"{SMALL}-raw", True)],
)
@pytest.mark.parametrize("read_options", PINNED.values(), ids=PINNED)
def test_a_selector_trains_on_the_pixels_of_the_named_samples(
    made: Workspace, read_options: ReadOptions, thumbnails: str | None, score_ahead: bool
) -> None:
    full, scored = pixels_of(made), pixels_of(made, thumbnails=thumbnails)
    model, steps = network(), 0
    selector = OnlineSelector(model, batch_size=10, score_ahead=score_ahead)
    stream = stream_of(made, read_options, thumbnails=thumbnails)
    for _ in range(EPOCHS):
        for batch in selector(stream):
            assert batch.super_batch is not None
            for images, spec, keys, expected in (
                (batch.images, ImageSpec(size=SIDE), batch.keys, full),
                (batch.thumbnails, batch.super_batch.spec, batch.keys, scored),
                (batch.super_batch.images, None, batch.super_batch.keys, scored),
            ):
                pixels = torch.stack([expected[key] for key in keys])
                close(images, pixels if spec is None else spec.normalize(pixels))
            numbers = [int(key[1:]) for key in batch.keys]
            assert batch.labels.tolist() == [(number * 7 + number // 3) % 3 for number in numbers]
            model(batch.images).sum().backward()  # keeps the GPU busy while the next ones are read
            steps += 1
    assert steps == selector.step == EPOCHS * 8


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.device.type == DEVICE
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-5)  # a GPU divides by a number in its own way


def test_pictures_of_a_selection_on_a_gpu_can_be_shown(made: Workspace) -> None:
    batch = next(OnlineSelector(network(), batch_size=10)(stream_of(made, PINNED["threads"])))
    grids = picture_grids(batch, ("coat", "dress", "vest"))
    assert len(grids) == 2
