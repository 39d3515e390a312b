"""`rho shards` ended by a signal at random moments and started again ends as if it had never been ended."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.killable import ENDS
from helpers.shards_corpus import contents, write_corpus
from helpers.support import put

KILLS = int(os.environ.get("RHO_TEST_KILLS", "20"))


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("killed")
    bad = [("gone.jpg", "cat"), ("photos/0/0,0.jpg", "dog"), ("broken.jpg", "bird")]
    put(folder / "corpus/broken.jpg", b"<html>")
    write_corpus(folder / "corpus", images=400, extra_rows=bad)
    manifest = put(
        folder / "tiny.toml", 'format = "table"\nroot = "corpus"\nclasses = ["cat", "dog", "bird"]\nshard_size = 32\n'
    )
    return [sys.executable, "-c", "from rhostream.cli.main import main; main()", "shards", "--manifest", str(manifest)]


def children_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(entry.name))
    return found


def state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


def test_killed_at_random_moments_and_restarted_equals_never_killed(command: list[str], tmp_path: Path) -> None:
    def run(workspace: str, workers: int) -> list[str]:
        return [*command, "--workspace", str(tmp_path / workspace), "--workers", str(workers)]

    subprocess.run(run("whole", 0), check=True, capture_output=True)
    expected = contents(tmp_path / "whole")
    assert sum(name.startswith("rejects/") for name in expected) == 13

    chance = random.Random(0)
    killed = tmp_path / "killed"
    interrupted = 0
    for number in range(KILLS):
        written = len(list(killed.rglob("*.*")))
        process = subprocess.Popen(run("killed", number % 3), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        more = chance.randrange(-5, 25)  # files it may still write; below zero, it is killed while it starts
        deadline = time.monotonic() + (chance.uniform(0, 0.5) if more < 0 else 60)
        while (
            process.poll() is None and time.monotonic() < deadline and len(list(killed.rglob("*.*"))) < written + more
        ):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        sent = chance.choice(list(ENDS))
        process.send_signal(sent)
        _, said = process.communicate()
        interrupted += process.returncode != 0
        if process.returncode == 0:
            assert contents(killed) == expected
            shutil.rmtree(killed)
        else:
            assert process.returncode in ENDS[sent], said.decode()
    assert interrupted >= KILLS // 2
    subprocess.run(run("killed", 2), check=True, capture_output=True)
    assert contents(killed) == expected


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see the workers")
def test_workers_die_with_their_killed_parent(command: list[str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*command, "--workspace", str(tmp_path / "w"), "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "w").rglob("*.tar*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = children_of(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    while any(state(worker) not in ("gone", "Z") for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert all(state(worker) in ("gone", "Z") for worker in workers)


@pytest.mark.parametrize(("number", "whom"), [(signal.SIGINT, os.killpg), (signal.SIGTERM, os.kill)], ids=str)
def test_a_signal_stops_it_at_once_in_one_line(
    command: list[str], tmp_path: Path, number: signal.Signals, whom: Callable[[int, int], None]
) -> None:
    """Ctrl-C reaches the workers as well, what Kubernetes sends the parent alone."""
    process = subprocess.Popen(
        [*command, "--workspace", str(tmp_path / "w"), "--workers", "2"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "w").rglob("*.tar*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = children_of(process.pid)
    whom(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (0, 128 + number)
    if process.returncode:
        assert said.splitlines()[-1] == (
            f"rho: interrupted by {number.name}: what is finished stays, the same command goes on from there"
        )
        assert "Traceback" not in said
    while any(state(worker) not in ("gone", "Z") for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert all(state(worker) in ("gone", "Z") for worker in workers)
