"""Decoding processes: the same pixels and errors as threads give, and nothing is left of them, whoever is killed."""

import contextlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
import pytest
from helpers.named_memory import family, named_shared_memory
from helpers.stored_images import TARS, Stored, runs, started

from rhostream.errors import ShardError, WorkerError
from rhostream.loaders.decode.image_reader import ImageReader, PendingImages
from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.loaders.decode.read_options import ReadOptions
from rhostream.loaders.decode.stored_refs import StoredRefs

VIEW = ImageSpec(size=16)
WANTED = [image for image in range(100) if image not in (7, 77)]

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="NOT TESTED: looks into Linux's /proc")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return Stored(tmp_path_factory.mktemp("stored"), 100, broken=(7, 77))


def wait_for(images: Iterable[PendingImages]) -> None:
    for one in images:
        one.result()


def all_end(pids: list[int], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while any(runs(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_processes_give_the_pixels_and_failures_that_threads_give(stored: Stored) -> None:
    reader = ImageReader(stored.workspace, ReadOptions(workers=2))
    first, failures = reader.submit(stored.refs(WANTED), VIEW).result()  # before the processes are up
    assert (first == stored.pixels(WANTED, VIEW)).all()
    pids = started(reader, stored, 2)
    threads = ImageReader(stored.workspace, ReadOptions(threads=2, workers=0))
    everything = stored.refs(list(range(100)), hashed=True)
    assert everything.hashes is not None
    everything = StoredRefs(
        **{
            **vars(everything),
            "hashes": ["0" * 32, *everything.hashes[1:]],
            "augmentation_seeds": [str(i) for i in range(100)],
        }
    )
    for spec, augmentation in ((VIEW, "none"), (ImageSpec.from_dict({"size": 20, "channels": 1}), "shift_flip")):
        pending = [reader.submit(everything, spec, augmentation, urgent=number == 3) for number in range(4)]
        expected, expected_failures = threads.submit(everything, spec, augmentation).result()
        assert [position for position, _ in expected_failures] == [0, 7, 77]
        whole = [position for position in range(100) if position not in (0, 7, 77)]
        for images, failures in (one.result() for one in pending):
            assert failures == expected_failures
            assert (images[whole] == expected[whole]).all()
    assert all(runs(pid) for pid in pids)
    reader.close()
    assert not any(runs(pid) for pid in pids)
    threads.close()


def test_shard_errors_of_a_process_arrive_and_it_goes_on(stored: Stored) -> None:
    reader = ImageReader(stored.workspace, ReadOptions(workers=1))
    pids = started(reader, stored, 1)
    refs = stored.refs(WANTED)
    with pytest.raises(ShardError, match=r"gone\.tar has vanished"):
        reader.submit(StoredRefs(**{**vars(refs), "tars": [TARS[0], "shards/gone.tar"]}), VIEW).result()
    with pytest.raises(ShardError, match="ends at byte"):
        reader.submit(StoredRefs(**{**vars(refs), "offsets": refs.offsets + (1 << 30)}), VIEW).result()
    images, _ = reader.submit(refs, VIEW).result()
    assert (images == stored.pixels(WANTED, VIEW)).all()
    assert reader.processes == pids
    reader.close()


def test_only_the_tars_read_from_are_named_to_a_process(stored: Stored) -> None:
    reader = ImageReader(stored.workspace, ReadOptions(workers=1))
    started(reader, stored, 1)
    refs = stored.refs(WANTED)
    many = [*(f"shards/{number}.tar" for number in range(5000)), *TARS]
    refs = StoredRefs(**{**vars(refs), "tars": many, "numbers": (refs.numbers + 5000).astype(np.int32)})
    images, _ = reader.submit(refs, VIEW).result()
    assert (images == stored.pixels(WANTED, VIEW)).all()
    reader.close()


@pytest.mark.slow
def test_a_process_starts_without_what_it_does_not_need() -> None:
    """Each would delay it by a second and more."""
    code = "import sys, rhostream.loaders.decode.process_main; print({'torch', 'pandas', 'pyarrow'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


@pytest.mark.slow
def test_processes_load_no_torch_and_hold_little(stored: Stored) -> None:
    reader = ImageReader(stored.workspace, ReadOptions(workers=1))
    (pid,) = started(reader, stored, 1)
    assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
    for size in range(64, 96):  # each larger than the buffers before
        reader.submit(stored.refs(WANTED), ImageSpec(size=size)).result()
    mapped = Path(f"/proc/{pid}/maps").read_text().count("memfd:rhostream")
    assert 1 <= mapped <= 10
    reader.close()


@pytest.mark.slow
def test_hundreds_of_super_batches_do_not_use_up_open_files(stored: Stored) -> None:
    _, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = len(list(Path("/proc/self/fd").iterdir()))  # what earlier tests and their servers have open
    resource.setrlimit(resource.RLIMIT_NOFILE, (others + 240, hard))
    try:
        reader = ImageReader(stored.workspace, ReadOptions(workers=1))
        started(reader, stored, 1)
        held = [reader.submit(stored.refs(WANTED[n : n + 5]), VIEW).result()[0] for n in range(90) for _ in range(3)]
        assert all((images == stored.pixels(WANTED[n // 3 :][:5], VIEW)).all() for n, images in enumerate(held))
        assert len(list(Path("/proc/self/fd").iterdir())) < others + 190
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    held.clear()
    buffer, _ = reader._engine._pool.take(1000)  # type: ignore[union-attr]
    assert buffer.file is not None, "decoded by threads for ever"
    reader.close()


@pytest.mark.slow
def test_auto_starts_processes_only_where_there_is_much_work(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rhostream.loaders.decode.image_reader._WORTH_A_PROCESS", 0.05)
    reader = ImageReader(stored.workspace, ReadOptions(threads=2, workers="auto"))
    reader.submit(stored.refs([1, 2]), VIEW).result()
    assert reader.processes == []
    assert len(started(reader, stored, 2)) == 2
    images, _ = reader.submit(stored.refs(WANTED), VIEW).result()
    assert (images == stored.pixels(WANTED, VIEW)).all()
    reader.close()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["idle", "busy"])
def test_a_killed_process_is_an_error_at_once(stored: Stored, when: str) -> None:
    reader = ImageReader(stored.workspace, ReadOptions(workers=2))
    pids = started(reader, stored, 2)
    pending = [reader.submit(stored.refs(WANTED * 4), ImageSpec(size=160)) for _ in range(6)] if when == "busy" else []
    os.kill(pids[0], signal.SIGKILL)
    begin = time.monotonic()
    pending = pending or [reader.submit(stored.refs(WANTED * 4), VIEW) for _ in range(6)]
    with pytest.raises(WorkerError, match=rf"process {pids[0]} was killed by SIGKILL: .*workers=0") as caught:
        wait_for(pending)
    assert time.monotonic() - begin < 30
    assert "\n" not in str(caught.value)
    reader.close()
    assert all_end(pids)


def test_a_process_that_cannot_start_is_an_error(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    reader = ImageReader(stored.workspace, ReadOptions(workers=1))
    with pytest.raises(WorkerError, match="cannot start a decoding process"):
        reader.submit(stored.refs([1]), VIEW).result()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(WorkerError, match="has ended with status 1"):
        wait_for(reader.submit(stored.refs(WANTED), VIEW) for _ in range(500))
    reader.close()


# A trainer as a user writes it: a plain script without `if __name__ == "__main__"`.
_SCRIPT = """
import os, signal, sys, time
# Whoever started the tests in the background has every child ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {tests!r})
from pathlib import Path
from helpers.stored_images import Stored
from rhostream.loaders.decode import ImageReader, ImageSpec, ReadOptions

stored = Stored(Path({folder!r}), 20)
reader = ImageReader(stored.workspace, ReadOptions(workers=2))
refs, spec = stored.refs(list(range(20)) * 8), ImageSpec(size=128)
pending = [reader.submit(refs, spec) for _ in range(3)]
while len(reader.processes) < 2:
    time.sleep(0.01)
if {forks} and os.fork() == 0:
    time.sleep(600)
    os._exit(0)
print("ready", flush=True)
parent = os.getppid()
while {forever} and os.getppid() == parent:  # a killed test leaves nothing that decodes for ever
    pending.append(reader.submit(refs, spec))
    pending.pop(0).result()
"""


@contextlib.contextmanager
def run_script(folder: Path, *, forever: bool, forks: bool = False) -> "Iterator[subprocess.Popen[str]]":
    code = _SCRIPT.format(tests=str(Path(__file__).parents[2]), folder=str(folder), forever=forever, forks=forks)
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,  # as a shell does with each command
    ) as script:
        try:
            yield script
        finally:
            with contextlib.suppress(ProcessLookupError):  # a failed test leaves nothing that decodes for ever
                os.killpg(script.pid, signal.SIGKILL)


def pids_of(script: "subprocess.Popen[str]") -> list[int]:
    """Once they decode: its processes' ids. Up to then, none of them has had shared memory that has a name."""
    assert script.stdout is not None
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        pids = family(script.pid)
        assert {path for pid in pids for path in named_shared_memory(pid)} == set()
        pids = [pid for pid in pids if "process_main" in command_of(pid)]
        if len(pids) == 2 and all("memfd:rhostream" in Path(f"/proc/{pid}/maps").read_text() for pid in pids):
            script.stdout.readline()
            return pids
        time.sleep(0.01)
    raise AssertionError("the processes do not decode")


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:  # it has ended
        return ""


def test_named_shared_memory_is_attributed_to_its_own_process() -> None:
    """So that the tests below would tell."""
    before = named_shared_memory(os.getpid())
    lock = multiprocessing.get_context("spawn").Lock()
    block = shared_memory.SharedMemory(create=True, size=1 << 16)
    try:
        ours = named_shared_memory(os.getpid()) - before
        # The C library maps a semaphore before it gives it its name, so that it shows with another one.
        assert sorted(path.partition("_")[0].partition(".")[0] for path in ours) == ["/dev/shm/psm", "/dev/shm/sem"]
        assert f"/dev/shm/{block.name}" in ours
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        assert {path for pid in family(child.pid) for path in named_shared_memory(pid)} == set()
        assert child.pid in family(os.getpid())
        child.communicate(b"\n")
        del lock
        assert named_shared_memory(os.getpid()) - before == {f"/dev/shm/{block.name}"}
    finally:
        block.close()
        block.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_trainer_is_killed_or_interrupted(tmp_path: Path, how: signal.Signals) -> None:
    with run_script(tmp_path, forever=True) as script:
        pids = pids_of(script)
        everyone = family(script.pid)
        assert set(pids) < set(everyone)
        # Nothing that has a name can be left by who has had none.
        assert {path for pid in everyone for path in named_shared_memory(pid)} == set()
        # Ctrl-C reaches everything in the terminal's foreground, a kill this process alone.
        (os.killpg if how == signal.SIGINT else os.kill)(script.pid, how)
        _, errors = script.communicate(timeout=120)
        assert script.returncode == -how
        assert all_end(everyone), "the processes outlive the trainer"
        assert errors.count("Traceback") == (1 if how == signal.SIGINT else 0), errors
        assert "process_main" not in errors


@pytest.mark.slow
def test_processes_end_with_the_trainer_though_its_fork_lives_on(tmp_path: Path) -> None:
    """The fork has inherited the trainer's ends of the sockets, so these do not close."""
    with run_script(tmp_path, forever=True, forks=True) as script:
        pids = pids_of(script)
        script.kill()
        script.wait()
        assert all_end(pids)


@pytest.mark.slow
def test_a_trainer_that_never_closes_its_reader_still_ends_cleanly(tmp_path: Path) -> None:
    with run_script(tmp_path, forever=False) as script:
        _, errors = script.communicate(timeout=120)
        assert (script.returncode, errors) == (0, "")


@pytest.mark.slow
def test_a_users_module_does_not_enter_the_processes_by_name(
    stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong one')\n")
    monkeypatch.chdir(tmp_path)
    reader = ImageReader(stored.workspace, ReadOptions(workers=1))
    started(reader, stored, 1)
    reader.close()
