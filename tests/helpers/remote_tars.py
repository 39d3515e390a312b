"""Remote tars of known content, and what the cache folder holds of them."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.remote_store import Web
from rhostream.loaders.storage.shard_reader import ShardReader

SIZE = 1_000_000
READ = """
import sys
from rhostream.loaders.storage.shard_reader import ShardReader
from rhostream.loaders.storage.workspace import Workspace
reader = ShardReader(Workspace(sys.argv[1]))
for tar in sys.argv[2:]:
    sys.stdout.buffer.write(reader.read(tar, 1000, 4))
"""


def content(number: int) -> bytes:
    return number.to_bytes(4, "little") * (SIZE // 4)


@pytest.fixture
def tars(web: Web) -> list[str]:
    """Eight remote tars of 1 MB each."""
    names = [f"{number}.tar" for number in range(8)]
    for number, name in enumerate(names):
        (web.folder / name).write_bytes(content(number))
    return names


def bound(monkeypatch: pytest.MonkeyPatch, megabytes: float) -> None:
    monkeypatch.setenv("RHO_CACHE_GB", str(megabytes / 1000))


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def fetches(web: Web, tar: str = "") -> int:
    """How often a tar was fetched: the requests for its first piece."""
    return sum(f"GET /{tar}" in request and "bytes=0-" in request for request in web.requests)


def number_of(reader: ShardReader, tar: str) -> int:
    return int.from_bytes(reader.read(tar, 1000, 4), "little")


def child(web: Web, *tars: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", READ, web.url, *tars], stdout=subprocess.PIPE)


def wait_for_part(folder: Path) -> Path:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for part in folder.glob("*.part"):
            return part
        time.sleep(0.01)
    raise AssertionError("nothing is being fetched")
