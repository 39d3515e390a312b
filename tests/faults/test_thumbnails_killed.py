"""`rho thumbnails` ended by a signal at random moments and started again ends as if it had never been ended."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.killable import KILLS, end, finish, start
from helpers.shards_corpus import contents
from helpers.tiny import write_workspace


def test_thumbnails_ended_by_signals_equal_those_never_ended(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        write_workspace(tmp_path / name, (6,) * 20, side=24)
    command = ["thumbnails", "--size", "12", "--workers", "0"]
    whole, interrupted = ([*command, "--workspace", str(tmp_path / name)] for name in ("whole", "killed"))
    finish(["--version"])  # the server starts here, and not while the command is timed
    seconds = finish(whole)
    expected = contents(tmp_path / "whole" / "thumbnails")
    assert len(expected) == 2 * 20 + 1

    chance, killed, began = random.Random(2), 0, 0
    while killed < KILLS:
        process = start(interrupted)
        process.join(chance.uniform(0, seconds))
        killed += end(process, chance)
        began += (tmp_path / "killed" / "thumbnails").exists()
        if process.exitcode == 0:  # it got to the end: from the beginning again
            assert contents(tmp_path / "killed" / "thumbnails") == expected
            shutil.rmtree(tmp_path / "killed" / "thumbnails")
    assert began
    finish(interrupted)
    assert contents(tmp_path / "killed" / "thumbnails") == expected


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see the workers")
def test_killed_thumbnails_restarted_equal_those_never_killed(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        write_workspace(tmp_path / name, (10,) * 60, side=48)
    run = [sys.executable, "-c", "from rhostream.cli.main import main; main()", "thumbnails", "--size", "40"]
    subprocess.run([*run, "--workspace", str(tmp_path / "whole"), "--workers", "0"], check=True, capture_output=True)
    command = [*run, "--workspace", str(tmp_path / "killed"), "--workers", "2"]
    index = tmp_path / "killed" / "thumbnails" / "40-jpeg" / "index"
    for _ in range(5):  # where the machine does other things meanwhile, it may be done before it is killed
        shutil.rmtree(tmp_path / "killed" / "thumbnails", ignore_errors=True)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(list(index.glob("*.parquet"))) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.kill()
        process.wait()
        if len(list(index.glob("*.parquet"))) < 60:
            break
    assert 3 <= len(list(index.glob("*.parquet"))) < 60
    subprocess.run(command, check=True, capture_output=True)
    assert contents(tmp_path / "killed" / "thumbnails") == contents(tmp_path / "whole" / "thumbnails")
