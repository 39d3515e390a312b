"""The bounded folder of local copies: shared, and never half a file."""

import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers import remote_store, remote_tars
from helpers.remote_store import Web
from helpers.remote_tars import READ, SIZE, bound, child, content, fetches, held, number_of, wait_for_part

from rhostream.errors import ShardError, UndecodableError
from rhostream.loaders.decode.rgb import content_hash
from rhostream.loaders.decode.stored import read_stored
from rhostream.loaders.storage import shard_cache as cache_module, shard_reader
from rhostream.loaders.storage.shard_reader import ShardReader
from rhostream.loaders.storage.workspace import Workspace

web, cache, impatient, tars = remote_store.web, remote_store.cache, remote_store.impatient, remote_tars.tars


def test_the_folder_keeps_its_bound_and_drops_the_least_recent(
    web: Web, cache: Path, tars: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bound(monkeypatch, 3.5)
    (web.folder / "8.tar").write_bytes(content(8))
    kept_open = ShardReader(Workspace(web.url))
    for number, tar in enumerate(tars):
        assert number_of(kept_open, tar) == number
        assert held(cache) <= 3_500_000
    assert [number_of(kept_open, tar) for tar in tars] == list(range(8)), "what is removed stays readable where open"
    assert fetches(web) == 8
    again = ShardReader(Workspace(web.url))
    assert number_of(again, "5.tar") == 5  # now the last one that was opened
    assert fetches(web) == 8
    assert number_of(again, "0.tar") == 0
    assert fetches(web) == 9
    assert number_of(ShardReader(Workspace(web.url)), "5.tar") == 5
    assert fetches(web) == 9
    assert number_of(ShardReader(Workspace(web.url)), "6.tar") == 6
    assert fetches(web) == 10
    monkeypatch.setattr(shard_reader, "MAX_REMOVED_SHARDS", 2)
    number_of(kept_open, "8.tar")
    removed = [stream for stream in kept_open._open.values() if not os.fstat(stream.fileno()).st_nlink]
    assert len(removed) == 2, "what is removed does not hold its disk space for long"


def test_threads_that_want_the_same_tar_fetch_it_once(web: Web, cache: Path, tars: list[str]) -> None:
    reader = ShardReader(Workspace(web.url))
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda i: number_of(reader, tars[i % 8]), range(160)))
    assert found == [i % 8 for i in range(160)]
    assert fetches(web) == 8


@pytest.mark.slow
def test_processes_share_the_folder_and_fetch_each_tar_once(web: Web, cache: Path, tars: list[str]) -> None:
    children = [child(web, *(tars[start:] + tars[:start])) for start in (0, 0, 4)]
    outputs = [process.communicate(timeout=60)[0] for process in children]
    assert outputs[0] == outputs[1] == b"".join(content(number)[:4] for number in range(8))
    assert outputs[2] == outputs[0][16:] + outputs[0][:16]
    assert fetches(web) == 8
    assert not list(cache.glob("*.part"))


@pytest.mark.slow
def test_a_killed_fetcher_leaves_nothing_harmful(
    web: Web, cache: Path, tars: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for abandoned in ("0.tar", "1.tar"):
        web.faults += ["ok", "drip"]
        process = child(web, abandoned)
        part = wait_for_part(cache)
        process.kill()
        process.wait()
        assert part.exists()
        assert not list(cache.glob("*.tar"))
        reader = ShardReader(Workspace(web.url))
        assert number_of(reader, "0.tar") == 0, "the abandoned one is fetched anew; one of another tar is swept away"
        assert not list(cache.glob("*.part"))
        (next(cache.glob("*.tar"))).unlink()


@pytest.mark.slow
def test_whoever_waits_for_a_killed_fetcher_takes_over(web: Web, cache: Path, tars: list[str]) -> None:
    web.faults += ["ok", "drip"]
    fetcher = child(web, "0.tar")
    wait_for_part(cache)
    waiter = child(web, "0.tar")
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            waiter.wait(1)
        assert fetches(web) == 1
        fetcher.kill()
        assert waiter.communicate(timeout=20)[0] == content(0)[:4]
        assert fetches(web) == 2
    finally:
        fetcher.kill()
        waiter.kill()


@pytest.mark.slow
def test_a_stopped_fetcher_is_not_waited_for_endlessly(
    web: Web, cache: Path, tars: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    web.faults += ["ok", "drip"]
    fetcher = child(web, "0.tar")
    wait_for_part(cache)
    fetcher.send_signal(signal.SIGSTOP)
    try:
        monkeypatch.setattr(cache_module, "_PATIENCE_SECONDS", 0.3)
        assert number_of(ShardReader(Workspace(web.url)), "0.tar") == 0
    finally:
        fetcher.kill()
        fetcher.wait()


def test_a_damaged_copy_is_fetched_again(web: Web, cache: Path, tars: list[str]) -> None:
    number_of(ShardReader(Workspace(web.url)), "3.tar")
    os.truncate(next(cache.glob("*.tar")), 10)
    assert number_of(ShardReader(Workspace(web.url)), "3.tar") == 3
    assert held(cache) == SIZE


def test_a_copy_damaged_at_equal_size_is_fetched_again_once(web: Web, cache: Path, tars: list[str]) -> None:
    reader = ShardReader(Workspace(web.url))
    expected = content_hash(content(3)[1000:1004])
    assert read_stored(reader, "3.tar", 1000, 4, expected) == content(3)[1000:1004]
    copy = next(cache.glob("*.tar"))
    copy.write_bytes(bytes(SIZE))
    assert read_stored(reader, "3.tar", 1000, 4, expected) == content(3)[1000:1004]
    assert fetches(web, "3.tar") == 2
    (web.folder / "4.tar").write_bytes(bytes(SIZE))
    for _ in range(2):
        with pytest.raises(UndecodableError, match="not those that the index describes"):
            read_stored(reader, "4.tar", 1000, 4, expected)
    assert fetches(web, "4.tar") == 2


def test_another_threads_read_of_a_damaged_copy_is_repeated(
    web: Web, cache: Path, tars: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = ShardReader(Workspace(web.url))
    expected = content_hash(content(3)[1000:1004])
    reader.read("3.tar", 0, 4)
    next(cache.glob("*.tar")).write_bytes(bytes(SIZE))
    assert read_stored(reader, "3.tar", 1000, 4, expected) == content(3)[1000:1004]
    before, read = [bytes(4)], reader.read  # read when the other thread had not yet noticed
    monkeypatch.setattr(reader, "read", lambda *where, **how: before.pop() if before else read(*where, **how))
    assert read_stored(reader, "3.tar", 1000, 4, expected) == content(3)[1000:1004]


def test_prefetched_tars_come_in_the_background(
    web: Web, cache: Path, tars: list[str], impatient: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = ShardReader(Workspace(web.url))
    reader.prefetch([*tars, "missing.tar"])
    deadline = time.monotonic() + 20
    while len(list(cache.glob("*.tar"))) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    requests = len(web.requests)
    assert [number_of(reader, tar) for tar in tars] == list(range(8))
    assert len(web.requests) == requests, "reading them asks the store nothing more"
    with pytest.raises(ShardError, match=r"missing.tar has vanished"):
        reader.read("missing.tar", 0, 1)
    reader.prefetch(tars)
    assert len(web.requests) <= requests + 4


@pytest.mark.slow
def test_a_read_waits_for_its_tars_prefetch(web: Web, cache: Path, tars: list[str]) -> None:
    web.faults += ["ok", "slow"]
    reader = ShardReader(Workspace(web.url))
    reader.prefetch(tars[:1])
    assert not (cache.exists() and list(cache.glob("*.tar"))), "it has waited"
    wait_for_part(cache)
    assert number_of(reader, "0.tar") == 0
    assert fetches(web) == 1


@pytest.mark.slow
def test_a_process_that_prefetches_ends_at_once(web: Web, cache: Path, tars: list[str]) -> None:
    web.faults += ["ok", "drip"]
    program = READ.replace(
        "for tar in", "reader.prefetch(sys.argv[2:]); import time; time.sleep(0.5); sys.exit()\nfor _ in"
    )
    # The tar would take a minute.
    subprocess.run([sys.executable, "-c", program, web.url, "0.tar"], check=True, timeout=45)
    assert number_of(ShardReader(Workspace(web.url)), "0.tar") == 0


@pytest.mark.slow
def test_single_images_are_read_directly_where_no_copy_exists(web: Web, cache: Path, tars: list[str]) -> None:
    reader = ShardReader(Workspace(web.url))
    for one in (reader, pickle.loads(pickle.dumps(reader))):
        web.requests.clear()
        assert [one.read(tar, 1000, 4, whole=False) for tar in tars] == [content(number)[:4] for number in range(8)]
        assert web.requests == [f"GET /{tar} bytes=1000-1003" for tar in tars]
    assert not cache.exists()
    number_of(reader, "0.tar")
    web.requests.clear()
    assert reader.read("0.tar", 1000, 4, whole=False) == content(0)[:4]
    assert not web.requests


def test_local_tars_are_read_where_they_lie(cache: Path, tars: list[str], web: Web) -> None:
    reader = ShardReader(Workspace(web.folder))
    reader.prefetch([*tars, "missing.tar"])
    assert [number_of(reader, tar) for tar in tars] == list(range(8))
    assert not cache.exists()
    assert len(reader._open) <= shard_reader.MAX_OPEN_SHARDS
