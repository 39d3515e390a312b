"""A cache folder that cannot be used costs speed and one warning: never a corrupt copy, never the run."""

import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import remote_store, remote_tars
from helpers.remote_store import Web
from helpers.remote_tars import READ, SIZE, bound, content, held, number_of

from rhostream.errors import ConfigError
from rhostream.loaders.storage import shard_cache as cache_module, shard_reader
from rhostream.loaders.storage.shard_reader import ShardReader
from rhostream.loaders.storage.workspace import Workspace

web, cache, tars = remote_store.web, remote_store.cache, remote_tars.tars


def test_an_unusable_folder_costs_speed_and_one_warning(
    web: Web, cache: Path, tars: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_told", threading.Event())
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    reader = ShardReader(Workspace(web.url))
    with caplog.at_level(logging.WARNING):
        assert [number_of(reader, tar) for tar in tars] == list(range(8))
    assert [record.message for record in caplog.records] == [
        f"some remote shards are read without a local copy, image by image, which is slow: {cache}: Not a directory"
    ]


def test_too_small_a_bound_costs_speed_and_names_the_remedy(
    web: Web, cache: Path, tars: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_told", threading.Event())
    bound(monkeypatch, 0.5)
    reader = ShardReader(Workspace(web.url))
    assert [number_of(reader, tar) for tar in tars] == list(range(8))
    assert "exceeds the cache's bound of 500000 bytes: raise RHO_CACHE_GB" in caplog.text
    assert held(cache) == 0
    bound(monkeypatch, 0)
    caplog.clear()
    web.requests.clear()
    assert number_of(ShardReader(Workspace(web.url)), "0.tar") == 0
    assert not caplog.text, "0 is a choice, and no accident"
    assert len(web.requests) == 1
    for value in ("many", "-1", "nan", "inf"):
        monkeypatch.setenv("RHO_CACHE_GB", value)
        with pytest.raises(ConfigError, match="RHO_CACHE_GB"):
            number_of(ShardReader(Workspace(web.url)), "0.tar")


def test_a_copy_is_tried_again_when_there_may_be_room(
    web: Web, cache: Path, tars: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bound(monkeypatch, 0.5)
    reader = ShardReader(Workspace(web.url))
    number_of(reader, "0.tar")
    bound(monkeypatch, 5)
    web.requests.clear()
    number_of(reader, "0.tar")
    assert web.requests == ["GET /0.tar bytes=1000-1003"], "not with every image"
    monkeypatch.setattr(shard_reader, "_RANGED_SECONDS", 0)
    number_of(reader, "1.tar")
    assert held(cache) == SIZE
    reader._ranged.clear()  # as if the time were over
    number_of(reader, "0.tar")
    assert held(cache) == 2 * SIZE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("NOT TESTED on a full disk: mounting one needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_costs_speed_and_leaves_no_corrupt_copy(
    web: Web, tars: list[str], small_disk: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_told", threading.Event())
    monkeypatch.setenv("RHO_CACHE", str(small_disk))
    bound(monkeypatch, 1000)  # more than the disk has
    readers = [ShardReader(Workspace(web.url)) for _ in range(2)]
    assert [number_of(readers[0], tar) for tar in tars] == list(range(8))
    assert "No space left on device" in caplog.text
    del readers[0]  # and the removed copies that it held open
    (small_disk / "filler").write_bytes(b"\0" * (os.statvfs(small_disk).f_bavail * 4096))
    assert [number_of(readers[0], tar) for tar in tars] == list(range(8))
    assert not list((small_disk / "shards").glob("*.part"))
    for copy in (small_disk / "shards").glob("*.tar"):
        assert copy.read_bytes() in map(content, range(8))


@pytest.mark.slow
def test_a_disk_that_refuses_a_write_costs_speed_only(web: Web, cache: Path, tars: list[str]) -> None:
    def limit_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    command = [sys.executable, "-c", READ, web.url, *tars]
    done = subprocess.run(command, preexec_fn=limit_files, capture_output=True, timeout=60)
    assert done.stdout == b"".join(content(number)[:4] for number in range(8)), done.stderr
    assert done.stderr.count(b"File too large") == 1
    assert held(cache) == 0
