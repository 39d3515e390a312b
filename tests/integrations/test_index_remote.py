"""`rho index` on tars behind URLs: memory, a plain web server, and an S3 that fails now and then."""

import random
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from helpers import remote_store
from helpers.foreign_tars import assert_rows_point_into_tars, index, sample, tar
from helpers.remote_store import S3, upload

from rhostream.errors import CorpusError, WorkspaceError
from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.loaders.index.shard_list import Shard
from rhostream.loaders.storage.retries import Retries
from rhostream.loaders.storage.workspace import Workspace

s3, cache, impatient = remote_store.s3, remote_store.cache, remote_store.impatient


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Three tars of 20 samples, labels 0 to 2, keys unique."""
    for number in range(3):
        members = [m for n in range(20) for m in sample(f"{number}{n:05d}", str(n % 3), 100 * number + n)]
        tar(tmp_path / "tars" / f"{number:03d}.tar", *members)
    return tmp_path / "tars"


def places(workspace: Path | str) -> set[tuple[object, ...]]:
    place = Workspace(workspace)
    tables = [place.read_table(f"index/{name}") for name in place.names("index", ".parquet")]
    return {
        (row["key"], row["split"], row["offset"], row["size"], row["content_hash"])
        for table in tables
        for row in table.to_pylist()
    }


def test_tars_and_workspace_behind_fsspec_urls(tars: Path) -> None:
    memory = fsspec.filesystem("memory")
    for number in range(3):
        memory.pipe(f"/foreign/{number:03d}.tar", (tars / f"{number:03d}.tar").read_bytes())
    for named in (["memory://foreign"], ["memory://foreign/*.tar"], ["memory://foreign/00{0..2}.tar"]):
        place = f"memory://indexed/{len(named[0])}"
        assert index(place, *named).entries == 60
        shards = CorpusMetadata.read(Workspace(place)).shards
        assert {shard.source.rpartition("/")[2] for shard in shards} == {"000.tar", "001.tar", "002.tar"}
        assert all(shard.source.startswith("memory://") for shard in shards)
        assert_rows_point_into_tars(place)
    with pytest.raises(CorpusError, match=r"memory://foreign/009\.tar: there is no such tar"):
        index("memory://other", "memory://foreign/009.tar")


@pytest.fixture
def web(tars: Path) -> Iterator[tuple[str, list[str]]]:
    """The URL of a server as `python -m http.server` runs it, on loopback, and what was asked of it."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            asked.append(f"{self.command} {self.path}")

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tars)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_tars_of_a_plain_web_server_are_read_once(web: tuple[str, list[str]], tars: Path, tmp_path: Path) -> None:
    url, asked = web
    summary = index(tmp_path / "w", f"{url}/{{000..002}}.tar", workers=1)
    assert summary.entries == 60
    assert sorted(line for line in asked if line.startswith("GET") and ".tar" in line) == [
        f"GET /{number:03d}.tar" for number in range(3)
    ]
    index(tmp_path / "local", tars)

    assert places(tmp_path / "w") == places(tmp_path / "local")
    shard: Shard = CorpusMetadata.read(Workspace(tmp_path / "w")).shards[0]
    assert shard.tar == f"{url}/000.tar"


def test_tars_are_indexed_in_an_s3_that_fails_sometimes(
    s3: S3, cache: Path, impatient: Retries, tars: Path, tmp_path: Path
) -> None:
    url = upload(tars, s3)
    chance, refused = random.Random(1), []

    def fault(environ: dict[str, Any]) -> str | None:
        if chance.random() < 0.1:
            refused.append(environ["PATH_INFO"])
            return "503 Slow Down"
        return None

    s3.fault = fault
    for named in (f"{url}/", f"{url}/*.tar"):
        assert index(f"{s3.url}/w{len(named)}", named).entries == 60
    assert len(refused) >= 5
    s3.fault = lambda environ: None
    index(tmp_path / "local", tars)
    assert places(f"{s3.url}/w{len(url) + 1}") == places(tmp_path / "local")
    assert_rows_point_into_tars(f"{s3.url}/w{len(url) + 1}")

    s3.fault = lambda environ: "503 Slow Down" if environ["PATH_INFO"].endswith("001.tar") else None
    with pytest.raises(WorkspaceError, match=r"001\.tar: 4 attempts in .* have failed"):
        index(tmp_path / "w", *(f"{url}/00{n}.tar" for n in range(3)))
