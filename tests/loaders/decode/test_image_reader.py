"""Super-batches of pixels: the right images at the right places, in memory that is reused only when nobody looks."""

import gc
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.stored_images import TARS, Stored

from rhostream.errors import ShardError
from rhostream.loaders.decode.buffers import BufferPool
from rhostream.loaders.decode.image_reader import ImageReader
from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.loaders.decode.read_options import ReadOptions
from rhostream.loaders.decode.stored_refs import StoredRefs

VIEW = ImageSpec(size=16)
THREADS = ReadOptions(threads=2, workers=0)


def address(images: np.ndarray) -> int:
    return int(images.__array_interface__["data"][0])


def decoding_threads() -> int:
    return sum(thread.name == "rhostream-decode" for thread in threading.enumerate())


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return Stored(tmp_path_factory.mktemp("stored"), 100, broken=(7, 77))


def test_images_come_in_the_requested_order_with_channels_last(stored: Stored) -> None:
    wanted = [int(image) for image in np.random.default_rng(0).permutation(100) if image not in (7, 77)] * 2
    reader = ImageReader(stored.workspace, THREADS)
    images, failures = reader.submit(stored.refs(wanted, hashed=True), VIEW).result()
    assert failures == []
    assert images.shape == (196, 3, 16, 16)
    assert images.transpose(0, 2, 3, 1).flags.c_contiguous
    assert (images == stored.pixels(wanted, VIEW)).all()
    luma = ImageSpec.from_dict({"size": 20, "channels": 1})
    images, failures = reader.submit(stored.refs(wanted), luma).result()
    assert (images == stored.pixels(wanted, luma)).all()
    reader.close()


def test_augmentation_is_drawn_from_each_images_text(stored: Stored) -> None:
    wanted = [1, 1, 2, 1]
    refs = stored.refs(wanted)
    refs = StoredRefs(**{**vars(refs), "augmentation_seeds": ["a", "b", "a", "a"]})
    reader = ImageReader(stored.workspace, THREADS)
    images, _ = reader.submit(refs, VIEW, "resized_crop").result()
    for image, seed, pixels in zip(wanted, refs.augmentation_seeds or (), images, strict=True):
        assert (pixels == VIEW.pixels(stored.files[image], "resized_crop", seed)).all()
    reader.close()


def test_failures_name_position_and_reason_and_spare_the_others(stored: Stored) -> None:
    wanted = [5, 7, *range(8, 77), 77, 78]
    reader = ImageReader(stored.workspace, THREADS)
    refs = stored.refs(wanted, hashed=True)
    assert refs.hashes is not None
    hashes = [*refs.hashes]
    hashes[3] = "0" * 32
    images, failures = reader.submit(StoredRefs(**{**vars(refs), "hashes": hashes}), VIEW).result()
    assert [position for position, _ in failures] == [1, 3, 71]
    assert all("not_an_image" in reason for position, reason in failures if position != 3)
    assert failures[1][1].startswith("corrupt: ")
    whole = [position for position in range(len(wanted)) if position not in (1, 3, 71)]
    assert (images[whole] == stored.pixels([wanted[position] for position in whole], VIEW)).all()
    reader.close()


def test_a_vanished_tar_is_an_error_not_a_hang(stored: Stored) -> None:
    reader = ImageReader(stored.workspace, THREADS)
    refs = stored.refs(list(range(40)))
    with pytest.raises(ShardError, match="vanished"):
        reader.submit(StoredRefs(**{**vars(refs), "tars": [TARS[0], "shards/gone.tar"]}), VIEW).result()
    images, _ = reader.submit(stored.refs([3]), VIEW).result()
    assert (images == stored.pixels([3], VIEW)).all()
    reader.close()


def test_nothing_asked_for_is_nothing(stored: Stored) -> None:
    reader = ImageReader(stored.workspace, THREADS)
    images, failures = reader.submit(stored.refs([]), VIEW).result()
    assert images.shape == (0, 3, 16, 16)
    assert failures == []
    reader.close()


@pytest.mark.parametrize("shared", [False, True])
def test_memory_is_reused_once_its_last_array_is_gone(shared: bool) -> None:
    pool = BufferPool(shared=shared)
    first, array = pool.take(100_000)
    held = torch.from_numpy(array.reshape(10, 100, 100)[2:].transpose(0, 2, 1))[3]
    del array
    second, other = pool.take(100_000)
    assert second.number != first.number
    held.fill_(7)
    del held
    third, again = pool.take(90_000)
    assert third.number == first.number
    assert other is not again
    del again
    assert pool.take(1000)[0].number != first.number, "far too large for this"
    assert (first.file is not None) == shared


def test_super_batches_never_reuse_memory_of_a_batch_still_held(stored: Stored) -> None:
    reader = ImageReader(stored.workspace, THREADS)
    kept, addresses = [], set()
    wanted = [image for image in range(100) if image not in (7, 77)]
    for turn in range(24):
        part = wanted[turn * 4 : turn * 4 + 30]
        images, _ = reader.submit(stored.refs(part), VIEW).result()
        addresses.add(address(images))
        if turn % 8 == 0:
            kept.append((part, torch.from_numpy(images)[2:9]))
        del images
    for part, some in kept:
        assert (some.numpy() == stored.pixels(part[2:9], VIEW)).all()
    assert len(addresses) <= len(kept) + 1
    reader.close()


@pytest.mark.slow
def test_memory_of_abandoned_images_waits_until_they_are_decoded(stored: Stored) -> None:
    """Nobody holds the result, but the decoders still write there."""
    reader = ImageReader(stored.workspace, THREADS)
    wanted = [image for image in range(100) if image not in (7, 77)] * 3
    for _ in range(20):
        reader.submit(stored.refs(wanted), ImageSpec(size=64))
        images, _ = reader.submit(stored.refs(wanted[:50]), VIEW).result()
        assert (images == stored.pixels(wanted[:50], VIEW)).all()
    reader.close()


def test_the_number_of_free_buffers_is_bounded() -> None:
    def open_buffers() -> int:
        return Path("/proc/self/maps").read_text().count("memfd:rhostream")

    gc.collect()
    pool = BufferPool(shared=True)
    before = open_buffers()
    arrays = [pool.take(1 << 20)[1] for _ in range(40)]
    assert open_buffers() > before + 30
    arrays.clear()
    assert open_buffers() <= before + 16


@pytest.mark.slow
def test_urgent_images_overtake_what_has_not_been_begun(stored: Stored) -> None:
    reader = ImageReader(stored.workspace, ReadOptions(threads=1, workers=0))
    wanted = [image for image in range(100) if image not in (7, 77)]
    waiting = [reader.submit(stored.refs(wanted * 3), ImageSpec(size=128)) for _ in range(6)]
    images, _ = reader.submit(stored.refs(wanted[:20]), VIEW, urgent=True).result()
    assert (images == stored.pixels(wanted[:20], VIEW)).all()
    assert not waiting[-1]._chunks[-1][1].done()
    for pending in waiting:
        pending.result()
    reader.close()


@pytest.mark.slow
def test_a_forgotten_readers_threads_end_once_its_images_are_there(stored: Stored) -> None:
    gc.collect()
    before = decoding_threads()
    pending = ImageReader(stored.workspace, THREADS).submit(stored.refs([1, 2, 3]), VIEW)
    assert decoding_threads() == before + 2
    images, _ = pending.result()
    assert (images == stored.pixels([1, 2, 3], VIEW)).all()
    del pending
    gc.collect()
    assert decoding_threads() == before
    assert (images == stored.pixels([1, 2, 3], VIEW)).all()


def test_a_closed_reader_refuses_instead_of_waiting_for_ever(stored: Stored) -> None:
    reader = ImageReader(stored.workspace, THREADS)
    reader.submit(stored.refs([1]), VIEW).result()
    reader.close()
    with pytest.raises(RuntimeError, match="closed"):
        reader.submit(stored.refs([1]), VIEW)


def test_a_fork_reads_on_its_own_while_its_parent_reads(stored: Stored) -> None:
    wanted = [image for image in range(100) if image not in (7, 77)]
    reader = ImageReader(stored.workspace, THREADS)
    pending = reader.submit(stored.refs(wanted), VIEW)
    child = os.fork()
    if child == 0:
        images, _ = reader.submit(stored.refs(wanted[::-1]), VIEW).result()
        os._exit(0 if (images == stored.pixels(wanted[::-1], VIEW)).all() else 1)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert ended[1] == 0
    assert (pending.result()[0] == stored.pixels(wanted, VIEW)).all()
    reader.close()


def test_threads_are_shared_out_to_the_ranks_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rhostream.loaders.decode.read_options.available_cores", lambda: 8)
    assert ReadOptions().decoders() == ReadOptions().processes() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert ReadOptions().decoders() == ReadOptions().processes() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert (ReadOptions().decoders(), ReadOptions().processes()) == (1, 0)
    assert (ReadOptions(threads=5).decoders(), ReadOptions(threads=5, workers=3).processes()) == (5, 3)
    monkeypatch.setattr("torch.utils.data.get_worker_info", lambda: object())
    assert ReadOptions(workers=3).processes() == 0
