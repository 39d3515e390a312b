"""A closed reader ends at once, whatever its threads and processes are at."""

import os
import signal
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from helpers.stored_images import Stored, runs, started

from rhostream.loaders.decode.image_reader import ImageReader
from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.loaders.decode.read_options import ReadOptions
from rhostream.loaders.storage.shard_reader import ShardReader

VIEW = ImageSpec(size=16)
IN_VAIN = 60.0  # seconds: what is not to be waited for; far more than a machine with other work adds


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that who waits as long as is allowed takes long enough to tell."""
    monkeypatch.setattr("rhostream.loaders.decode.pool._SECONDS_TO_END", IN_VAIN)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return Stored(tmp_path_factory.mktemp("stored"), 100)


def seconds_to_close(reader: ImageReader) -> float:
    begin = time.monotonic()
    reader.close()
    return time.monotonic() - begin


def test_a_process_that_still_starts_is_not_waited_for(
    stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(slow))
    reader = ImageReader(stored.workspace, ReadOptions(workers=2))
    while len(reader.processes) < 2:
        reader.submit(stored.refs(list(range(100))), VIEW).result()
    pids = reader.processes
    assert all(runs(pid) for pid in pids)
    assert seconds_to_close(reader) < IN_VAIN / 2
    assert not any(runs(pid) for pid in pids)


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_not_waited_for(stored: Stored) -> None:
    reader = ImageReader(stored.workspace, ReadOptions(workers=1))
    (pid,) = started(reader, stored, 1)
    os.kill(pid, signal.SIGSTOP)
    pending = [reader.submit(stored.refs(list(range(100))), VIEW) for _ in range(5)]
    time.sleep(0.1)
    assert seconds_to_close(reader) < IN_VAIN / 2
    assert not runs(pid)
    for images in pending:
        with pytest.raises(CancelledError):
            images.result()


@pytest.mark.slow
def test_a_thread_blocked_on_a_store_is_waited_for_briefly(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answers = threading.Event(), threading.Event()

    def read(*_: object, **__: object) -> bytes:
        asked.set()
        answers.wait()
        return stored.files[0]

    monkeypatch.setattr("rhostream.loaders.decode.pool._SECONDS_TO_END", 0.5)
    monkeypatch.setattr(ShardReader, "read", read)
    reader = ImageReader(stored.workspace, ReadOptions(threads=2, workers=0))
    pending = reader.submit(stored.refs([0, 1]), VIEW)
    try:
        asked.wait()
        reader.close()  # or the test would hang
        assert not any(chunk.done() for _, chunk in pending._chunks)
    finally:
        answers.set()
