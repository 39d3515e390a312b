"""`rho train` ended by SIGKILL, SIGTERM or SIGINT at random moments and started again: as if never ended."""

import json
import random
import shutil
from pathlib import Path

import pytest
from helpers.killable import KILLS, end, finish, start
from helpers.tiny import write_il, write_workspace

from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.thumbnails.write import write_thumbnails


def results(workspace: Path) -> dict[str, bytes]:
    """What the run came to: ledger, history, weights and settings; metrics (times) and checkpoints (costs) aside."""
    run = workspace / "runs" / "rho_loss"
    files = [*sorted((run / "ledger").iterdir()), *(run / "history").iterdir(), run / "model.safetensors"]
    files.append(run / "run.json")
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize("scored", ["full images", "thumbnails"])
def test_a_run_ended_by_signals_equals_one_never_ended(tmp_path: Path, scored: str) -> None:
    for name in ("whole", "killed"):
        workspace = write_workspace(tmp_path / name, (80, 80, 40), test_rows=30, side=16)
        write_il(workspace)
        if scored == "thumbnails":
            write_thumbnails(workspace, ThumbnailsConfig(size=8, format="raw", workers=0))
    command = ["train", "--model", "bn_cnn", "--batch-size", "8", "--super-batch-size", "40", "--steps", "60"]
    command += ["--evaluate-every", "4", "--augmentation", "shift_flip", "--device", "cpu", "--threads", "1"]
    command += ["--score-ahead"]
    whole, interrupted = ([*command, "--workspace", str(tmp_path / name)] for name in ("whole", "killed"))
    finish(["--version"])  # the server starts here, and not while the command is timed
    seconds = finish(whole)
    expected = results(tmp_path / "whole")
    assert len(expected) == 15 + 3
    assert json.loads(expected["run.json"])["thumbnails"] == ("8-raw" if scored == "thumbnails" else None)

    chance, killed = random.Random(1), 0
    while killed < KILLS:
        process = start(interrupted)
        process.join(chance.uniform(0, seconds / 2))
        killed += end(process, chance)
        if process.exitcode == 0:  # it got to the end: from the beginning again
            assert results(tmp_path / "killed") == expected
            shutil.rmtree(tmp_path / "killed" / "runs")
    finish(interrupted)
    assert results(tmp_path / "killed") == expected
    assert not list((tmp_path / "killed").rglob("*.tmp"))
