"""`rho il train` and `rho il score` ended by signals at random moments end as if they had never been ended."""

import hashlib
import random
import shutil
from pathlib import Path

import pytest
from helpers.corpus_fixture import write_shapes
from helpers.killable import KILLS, end, finish, start


def results(workspace: Path) -> dict[str, str]:
    """Digest of every file below il/ by its name; times (the costs) aside."""
    return {
        str(path.relative_to(workspace)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((workspace / "il").rglob("*"))
        if path.is_file() and path.parent.name != "costs"
    }


@pytest.mark.parametrize("splits", [{"train": 100, "holdout": 300}, {"train": 200}], ids=["holdout", "folds"])
def test_il_stages_ended_by_signals_equal_those_never_ended(splits: dict[str, int], tmp_path: Path) -> None:
    folds = 0 if "holdout" in splits else 2
    for name in ("whole", "killed"):
        write_shapes(tmp_path / name, splits=splits, folds=folds, shard_rows=10, noise=0.2)
    settings = ["--device", "cpu", "--threads", "1"]
    train = [
        "il",
        "train",
        "--model",
        "bn_cnn",
        "--steps",
        "150",
        "--batch-size",
        "16",
        "--augmentation",
        "shift_flip",
    ]
    score = ["il", "score", "--batch-size", "4"]
    chance, killed = random.Random(len(splits)), 0
    finish(["--version"])  # the server starts here, and not while the command is timed
    for command, made in ((train, "il"), (score, "il/bn_cnn/scores")):
        whole, interrupted = ([*command, *settings, "--workspace", str(tmp_path / w)] for w in ("whole", "killed"))
        seconds = finish(whole)
        for _ in range(KILLS):
            process = start(interrupted)
            process.join(chance.uniform(0, seconds / 2))  # what a signal stops has kept its steps
            killed += end(process, chance)
            if process.exitcode == 0:  # it was quicker: from the beginning again
                assert results(tmp_path / "killed") == results(tmp_path / "whole")
                shutil.rmtree(tmp_path / "killed" / made)
        finish(interrupted)
        assert results(tmp_path / "killed") == results(tmp_path / "whole")
    assert killed >= KILLS  # of twice as many
    assert len(results(tmp_path / "whole")) == 2 + max(0, folds - 1) + splits["train"] // 10
