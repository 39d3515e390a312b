"""Reading and writing over a network that fails: what passes by is ridden out, what stays is one clear error."""

import multiprocessing
import socket
from pathlib import Path
from typing import Any

import pytest
from helpers import remote_store
from helpers.remote_store import Web
from helpers.tiny import image_of, write_workspace

from rhostream.errors import ConfigError, ShardError, WorkspaceError
from rhostream.loaders.index.corpus_metadata import CorpusMetadata, read_shard_rows
from rhostream.loaders.storage import shard_cache as cache_module
from rhostream.loaders.storage.retries import Retries
from rhostream.loaders.storage.shard_reader import ShardReader
from rhostream.loaders.storage.workspace import Workspace

web, cache, impatient = remote_store.web, remote_store.cache, remote_store.impatient

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def served(web: Web) -> Workspace:
    (web.folder / "file").write_bytes(CONTENT)
    return Workspace(web.url)


@pytest.mark.parametrize("fault", ["reset", "truncate", "500", "502", "503", "429", "hang"])
def test_a_passing_fault_is_ridden_out(web: Web, served: Workspace, impatient: Retries, fault: str) -> None:
    web.faults += ["ok", fault, fault, "ok"] if fault != "hang" else ["ok", "hang"]
    assert served.read_bytes("file") == CONTENT
    assert not web.faults


def test_a_failed_size_request_is_not_a_missing_file(web: Web, served: Workspace, impatient: Retries) -> None:
    web.faults += ["reset", "503", "503", "reset"]  # the file system asks twice, by HEAD and GET, in each attempt
    assert served.exists("file")
    web.faults += ["503", "503"]
    assert served.size("file") == len(CONTENT)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["reset", "truncate", "503", "hang"])
def test_a_fault_that_stays_ends_in_one_clear_error(
    web: Web, served: Workspace, impatient: Retries, fault: str
) -> None:
    web.faults += ["ok"] + [fault] * 100
    with pytest.raises(WorkspaceError, match=r"attempts in \d+ s have failed, the last with \w+.*run again") as caught:
        served.read_bytes("file")
    assert f"{web.url}/file" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert f"{impatient.attempts} attempts" in str(caught.value)


def test_no_attempt_begins_after_the_time_is_over(web: Web, served: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = Retries(attempts=1000, seconds=0.5, pause=0.05, stall=1.0)
    monkeypatch.setattr("rhostream.loaders.storage.retries.RETRIES", hasty)
    web.faults += ["503"] * 1000
    with pytest.raises(WorkspaceError, match="attempts in"):
        served.read_bytes("file")
    assert len(web.requests) < 12, "the pauses between them double"


def test_a_server_that_is_gone_is_a_clear_error(impatient: Retries) -> None:
    with socket.socket() as taken:  # and nobody listens
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(WorkspaceError, match=rf"{host}/corpus.json: 4 attempts .*Connect"):
            CorpusMetadata.read(Workspace(f"http://{host}"))


def test_what_will_not_pass_is_not_tried_again(web: Web, served: Workspace) -> None:
    with pytest.raises(FileNotFoundError):
        served.read_bytes("missing")
    assert not served.exists("missing")
    web.requests.clear()
    web.faults += ["ok", "403"]
    with pytest.raises(WorkspaceError, match=r"access is refused .*403.*check the credentials"):
        served.read_bytes("file")
    web.faults += ["401"] * 2
    with pytest.raises(WorkspaceError, match="access is refused"):
        served.exists("file")
    assert len(web.requests) == 4


def test_a_store_that_only_reads_says_so(web: Web, served: Workspace, impatient: Retries) -> None:
    with pytest.raises(WorkspaceError, match=r"/new: .*cannot be written to"):
        served.write_bytes("new", b"x")


@pytest.mark.slow
def test_a_large_file_is_read_in_pieces_and_anywhere(web: Web, served: Workspace, impatient: Retries) -> None:
    content = b"".join(number.to_bytes(4, "little") for number in range(3 << 20))
    (web.folder / "large").write_bytes(content)
    with served.open("large") as stream:
        web.faults += ["reset", "truncate"]
        assert stream.read(10) == content[:10]
        stream.seek(-100, 2)
        assert stream.read() == content[-100:]
        stream.seek(0)
        assert stream.read() == content


@pytest.mark.slow
@pytest.mark.parametrize("ranges", [True, False])
def test_a_workspace_is_read_over_http(web: Web, cache: Path, tmp_path: Path, ranges: bool) -> None:
    web.ranges = ranges
    write_workspace(web.folder / "w", [4, 3])
    place = Workspace(f"{web.url}/w")
    number = 0
    for whole in (False, True):
        reader = ShardReader(place)
        for shard in CorpusMetadata.read(place).shards:
            rows = read_shard_rows(place, shard, ("width",))
            for row in range(shard.rows):
                data = reader.read(shard.tar, int(rows.offsets[row]), int(rows.sizes[row]), whole=whole)
                assert data == image_of(number % 7, (number % 7 * 7 + number % 7 // 3) % 3)
                number += 1
    assert number == 14
    assert len(list(cache.glob("*.tar"))) == 2


def test_names_that_are_absolute_stand_for_themselves(web: Web, cache: Path, tmp_path: Path) -> None:
    (web.folder / "a.tar").write_bytes(CONTENT)
    (tmp_path / "local.tar").write_bytes(CONTENT[::-1])
    for place in (Workspace(tmp_path / "empty"), Workspace(web.url)):
        reader = ShardReader(place)
        assert reader.read(f"{web.url}/a.tar", 5, 10) == CONTENT[5:15]
        assert reader.read(str(tmp_path / "local.tar"), 5, 10) == CONTENT[::-1][5:15]
        assert reader.read(f"file://{tmp_path}/local.tar", 0, 1) == CONTENT[-1:]
        assert place.exists(f"{web.url}/a.tar")
        assert place.size(str(tmp_path / "local.tar")) == place.size(f"{web.url}/a.tar") == len(CONTENT)
        assert place.read_bytes(str(tmp_path / "local.tar")) == CONTENT[::-1]
    with pytest.raises(ConfigError, match="foo"):
        reader.read("foo://host/a.tar", 0, 1)


@pytest.mark.parametrize("whole", [True, False])
def test_a_vanished_and_a_truncated_tar_are_clear_errors(web: Web, cache: Path, whole: bool) -> None:
    (web.folder / "a.tar").write_bytes(CONTENT)
    reader = ShardReader(Workspace(web.url))
    for offset in (len(CONTENT) - 5, len(CONTENT), len(CONTENT) + 500):
        with pytest.raises(ShardError, match=rf"a.tar ends at byte {len(CONTENT)}, .* 10 bytes at {offset}"):
            reader.read("a.tar", offset, 10, whole=whole)
    (web.folder / "a.tar").unlink()
    with pytest.raises(ShardError, match=r"b.tar has vanished"):
        reader.read("b.tar", 0, 10, whole=whole)
    with pytest.raises(ShardError, match=r"a.tar has vanished"):
        ShardReader(Workspace(web.url)).read("a.tar", 0, 10, whole=whole)


def test_a_fetch_goes_on_where_it_was_interrupted(
    web: Web, cache: Path, impatient: Retries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "PIECE_BYTES", 3000)
    (web.folder / "a.tar").write_bytes(CONTENT)
    web.faults += ["ok", "ok", "reset", "truncate", "503", "ok", "503", "ok", "ok"]
    assert ShardReader(Workspace(web.url)).read("a.tar", 9000, 100) == CONTENT[9000:9100]
    ranges = [request.split()[2] for request in web.requests if request.startswith("GET")]
    assert [ranges.count(f"bytes={start}-{min(start + 2999, 10239)}") for start in (0, 3000, 6000, 9000)] == [
        1,
        4,
        2,
        1,
    ]


def test_a_tar_rewritten_while_it_is_fetched_is_an_error(
    web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "PIECE_BYTES", 3000)
    (web.folder / "a.tar").write_bytes(CONTENT)
    write = cache_module._write

    def rewrite(descriptor: int, data: bytes, start: int) -> None:
        (web.folder / "a.tar").write_bytes(CONTENT[::-1])
        write(descriptor, data, start)

    monkeypatch.setattr(cache_module, "_write", rewrite)
    with pytest.raises(ShardError, match=r"a.tar was rewritten while it was read"):
        ShardReader(Workspace(web.url)).read("a.tar", 0, 10)
    assert not list(cache.glob("*.tar")) + list(cache.glob("*.part"))


def test_a_rewritten_tar_is_not_served_from_the_cache(web: Web, cache: Path) -> None:
    (web.folder / "a.tar").write_bytes(CONTENT)
    assert ShardReader(Workspace(web.url)).read("a.tar", 0, 10) == CONTENT[:10]
    (web.folder / "a.tar").write_bytes(CONTENT[::-1])
    assert ShardReader(Workspace(web.url)).read("a.tar", 0, 10) == CONTENT[::-1][:10]


def _read_in_child(reader: ShardReader, connection: object) -> None:
    connection.send(reader.read("b.tar", 0, 10))  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_reader_works_in_a_child_process(web: Web, cache: Path, method: str) -> None:
    for name in ("a.tar", "b.tar"):
        (web.folder / name).write_bytes(CONTENT)
    reader = ShardReader(Workspace(web.url))
    reader.read("a.tar", 0, 10)  # connections and threads exist before the fork
    context: Any = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    with reader._lock:  # as another thread might hold it when the process forks
        child = context.Process(target=_read_in_child, args=(reader, theirs))
        child.start()
    try:
        assert ours.poll(30)
        assert ours.recv() == CONTENT[:10]
    finally:
        child.kill()
        child.join()
