"""Exports killed with SIGKILL, or out of disk, and started again end as if nothing had happened."""

import errno
import random
import shutil
import signal
import time
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner
from helpers.killable import KILLS, finish, start
from helpers.shards_corpus import contents
from helpers.tiny import write_workspace

from rhostream.cli.main import rho
from rhostream.loaders.storage.workspace import Workspace

KINDS = {"webdataset": ["--samples-per-tar", "5"], "fiftyone": []}
CHOICE = ["--sql", "SELECT key FROM samples"]


def command(kind: str, folder: Path, name: str) -> list[str]:
    arguments = ["export", kind, "--workspace", str(folder / "w"), *CHOICE, *KINDS[kind]]
    return [*arguments, "--output", str(folder / name)]


def wait_for(folder: Path, process: Any) -> None:
    """Until the process has made the folder, or has ended."""
    while process.is_alive() and not folder.exists():
        time.sleep(0.002)


def seconds_of_export(arguments: list[str], output: Path) -> tuple[float, float]:
    """Run an export; returns the seconds until its folder is there, and from there to the end."""
    finish(["--version"])  # the server starts here, and not while the command is timed
    begin = time.monotonic()
    process = start(arguments)
    wait_for(output, process)
    middle = time.monotonic()
    process.join(120)
    assert process.exitcode == 0
    return middle - begin, time.monotonic() - middle


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_export_killed_at_random_moments_goes_on(kind: str, tmp_path: Path) -> None:
    write_workspace(tmp_path / "w", (20,) * 8, side=24)
    whole, interrupted = (command(kind, tmp_path, name) for name in ("whole", "killed"))
    before, after = seconds_of_export(whole, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    chance, killed, began = random.Random(3), 0, 0
    while killed < KILLS // 2:
        process = start(interrupted)
        if killed % 2:  # every other one at a moment of the export itself, which is short beside the start
            wait_for(tmp_path / "killed", process)
            process.join(chance.uniform(0, 1) * after)
        else:
            process.join(chance.uniform(0, 1) * before)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        began += (tmp_path / "killed").exists()
        if process.exitcode == 0:  # it got to the end: from the beginning again
            assert contents(tmp_path / "killed") == expected
            shutil.rmtree(tmp_path / "killed")
    assert began >= killed // 3
    finish(interrupted)
    assert contents(tmp_path / "killed") == expected


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_export_goes_on_once_the_disk_has_room(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_workspace(tmp_path / "w", (10,) * 2, side=24)
    assert CliRunner().invoke(rho, command(kind, tmp_path, "whole")).exit_code == 0
    writing, room = Workspace.writing, iter(range(3))

    def full(workspace: Workspace, name: str) -> "IO[bytes]":
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return writing(workspace, name)  # type: ignore[return-value]

    with monkeypatch.context() as patched:
        patched.setattr(Workspace, "writing", full)
        assert isinstance(CliRunner().invoke(rho, command(kind, tmp_path, "full")).exception, OSError)
    unfinished = contents(tmp_path / "full")
    assert 0 < len(unfinished) < len(contents(tmp_path / "whole"))
    assert CliRunner().invoke(rho, command(kind, tmp_path, "full")).exit_code == 0
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")


def test_another_export_needs_an_empty_folder_or_force(tmp_path: Path) -> None:
    write_workspace(tmp_path / "w", (10,) * 2, side=24)
    assert CliRunner().invoke(rho, command("webdataset", tmp_path, "out")).exit_code == 0
    (tmp_path / "out" / "mine.txt").write_text("mine")
    before = contents(tmp_path / "out")
    other = command("fiftyone", tmp_path, "out")
    refused = CliRunner().invoke(rho, other).exception
    assert "holds another export" in str(refused)
    assert contents(tmp_path / "out") == before
    assert CliRunner().invoke(rho, [*other, "--force"]).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "data",
        "export.json",
        "labels.json",
        "mine.txt",
    ]
