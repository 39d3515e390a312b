"""Workers end with the command that they work for, whatever ends it, and leave its successor alone with the result."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.corpus_fixture import write_shapes
from helpers.shards_corpus import contents, write_corpus
from helpers.support import put

from rhostream.cli.main import rho
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.il_config import ILTrainConfig
from rhostream.pipeline.il.train import train_il

RHO = [sys.executable, "-c", "from rhostream.cli.main import main; main()"]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("killed")
    bad = [("gone.jpg", "cat"), ("photos/0/0,0.jpg", "dog"), ("broken.jpg", "bird")]
    put(folder / "corpus/broken.jpg", b"<html>")
    write_corpus(folder / "corpus", images=400, extra_rows=bad)
    manifest = put(
        folder / "tiny.toml", 'format = "table"\nroot = "corpus"\nclasses = ["cat", "dog", "bird"]\nshard_size = 32\n'
    )
    return [*RHO, "shards", "--manifest", str(manifest)]


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


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see the workers")
def test_workers_die_with_their_killed_parent(command: list[str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*command, "--workspace", str(tmp_path / "w"), "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
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
    deadline = time.monotonic() + 300
    while not list((tmp_path / "w").rglob("*.tar*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = children_of(process.pid)
    whom(process.pid, number)
    _, said = process.communicate(timeout=300)
    assert process.returncode in (0, 128 + number)
    if process.returncode:
        assert said.splitlines()[-1] == (
            f"rho: interrupted by {number.name}: what is finished stays, the same command goes on from there"
        )
        assert "Traceback" not in said
    while any(state(worker) not in ("gone", "Z") for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert all(state(worker) in ("gone", "Z") for worker in workers)


STAGES = {
    "thumbnails": (["thumbnails", "--size", "18", "--workers", "2"], "thumbnails/18-jpeg", "index"),
    "il score": (["il", "score", "--device", "cpu", "--threads", "1", "--workers", "1"], "il/mlp/scores", "."),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_killed_while_workers_write_goes_on(stage: str, tmp_path: Path) -> None:
    arguments, made, parts = STAGES[stage]
    workspace = write_shapes(tmp_path / "whole", splits={"train": 200, "holdout": 20}, shard_rows=5)
    train_il(workspace, ILTrainConfig(model="mlp", steps=2, device="cpu"))
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")

    def finish(name: str) -> dict[str, str]:
        whole = [*arguments[:-1], "0", "--workspace", str(tmp_path / name)]
        assert CliRunner().invoke(rho, whole, catch_exceptions=False).exit_code == 0
        return contents(tmp_path / name / made)

    whole, written = finish("whole"), Workspace(tmp_path / "killed" / made)
    for _ in range(5):  # where the machine does other things meanwhile, it may be done before it is killed
        shutil.rmtree(written.root, ignore_errors=True)
        command = [*RHO, *arguments, "--workspace", str(tmp_path / "killed")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while len(written.names(parts)) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.kill()
        process.wait()
        if len(written.names(parts)) < 40:
            break
    assert 3 <= len(written.names(parts)) < 40
    assert finish("killed") == whole
