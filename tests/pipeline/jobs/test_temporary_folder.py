"""Temporary folders: nothing of them is left."""

import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from rhostream.pipeline.jobs import TemporaryFolder, remove_temporary_folders


class _InterruptAt:
    """Raises KeyboardInterrupt where the class's code has run so many lines, as a signal does."""

    def __init__(self, lines: int) -> None:
        self.left = lines

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.endswith("temporary_folder.py"):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def _use() -> None:
    with TemporaryFolder("test-") as folder:
        (folder / "file").write_text("spilled")


def test_a_signal_at_any_line_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    interrupted, trace = 0, sys.gettrace()
    while True:
        sys.settrace(_InterruptAt(interrupted + 1))
        try:
            _use()
            break
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(trace)
        remove_temporary_folders()
        assert not list(tmp_path.iterdir())
    assert interrupted >= 6  # both while it was made and while it was removed
    assert not list(tmp_path.iterdir())


def test_only_its_user_can_read_a_temporary_folder() -> None:
    with TemporaryFolder("test-") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
