"""Exports that ran out of disk go on; another one is never written over them."""

import errno
from pathlib import Path
from typing import IO

import pytest
from click.testing import CliRunner
from helpers.shards_corpus import contents
from helpers.tiny import write_workspace

from rhostream.cli.main import rho
from rhostream.loaders.storage.workspace import Workspace

KINDS = {"webdataset": ["--samples-per-tar", "5"], "fiftyone": []}
CHOICE = ["--sql", "SELECT key FROM samples"]


def command(kind: str, folder: Path, name: str) -> list[str]:
    arguments = ["export", kind, "--workspace", str(folder / "w"), *CHOICE, *KINDS[kind]]
    return [*arguments, "--output", str(folder / name)]


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
