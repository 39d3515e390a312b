"""`rho il train` and `rho il score` killed with SIGKILL at random moments end as if they had never been killed."""

import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from corpus_fixture import write_shapes

KILLS = int(os.environ.get("RHO_TEST_KILLS", "6"))

#: The server of forked processes has torch loaded, so that a restart takes milliseconds and not seconds.
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["rhostream.pipeline.il_train", "rhostream.pipeline.il_score", "torch._dynamo"])


def rho(arguments: list[str]) -> None:
    """What the process does: the command, as a shell would start it."""
    import torch

    from rhostream.cli.main import main

    torch.set_num_threads(1)
    sys.argv = ["rho", *arguments]
    with Path(os.devnull).open("w") as sys.stderr, Path(os.devnull).open("w") as sys.stdout:
        main()


def start(arguments: list[str]) -> Any:
    process = _server.Process(target=rho, args=(arguments,))
    process.start()
    return process


def finish(arguments: list[str]) -> float:
    """Run to the end; returns the seconds that it took."""
    begin = time.monotonic()
    process = start(arguments)
    process.join(120)
    assert process.exitcode == 0
    return time.monotonic() - begin


def results(workspace: Path) -> dict[str, str]:
    """Digest of every file below il/ by its name; times (the costs) aside."""
    return {
        str(path.relative_to(workspace)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((workspace / "il").rglob("*"))
        if path.is_file() and path.parent.name != "costs"
    }


@pytest.mark.parametrize("splits", [{"train": 100, "holdout": 300}, {"train": 200}], ids=["holdout", "folds"])
def test_killed_at_random_moments_and_restarted_equals_never_killed(splits: dict[str, int], tmp_path: Path) -> None:
    folds = 0 if "holdout" in splits else 2
    for name in ("whole", "killed"):
        write_shapes(tmp_path / name, splits=splits, folds=folds, shard_rows=10, noise=0.2)
    settings = ["--device", "cpu", "--threads", "1"]
    train = ["il", "train", "--model", "bn_cnn", "--epochs", "6", "--patience", "0", "--batch-size", "16",
             "--augmentation", "shift_flip"]  # fmt: skip
    score = ["il", "score", "--batch-size", "4"]
    chance, killed = random.Random(len(splits)), 0
    finish(["--version"])  # the server starts here, and not while the command is timed
    for command, made in ((train, "il"), (score, "il/bn_cnn/scores")):
        whole, interrupted = ([*command, *settings, "--workspace", str(tmp_path / w)] for w in ("whole", "killed"))
        seconds = finish(whole)
        for _ in range(KILLS):
            process = start(interrupted)
            process.join(chance.uniform(0, seconds))
            process.kill()
            process.join()
            killed += process.exitcode == -signal.SIGKILL
            if process.exitcode == 0:  # it was quicker: from the beginning again
                assert results(tmp_path / "killed") == results(tmp_path / "whole")
                shutil.rmtree(tmp_path / "killed" / made)
        finish(interrupted)
        assert results(tmp_path / "killed") == results(tmp_path / "whole")
    assert killed >= KILLS  # of twice as many
    assert len(results(tmp_path / "whole")) == 2 + max(0, folds - 1) + splits["train"] // 10
