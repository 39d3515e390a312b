"""`rho il score --workers` killed while its workers write leaves its successor alone with the table."""

import subprocess
import sys
import time
from pathlib import Path

from helpers.corpus_fixture import write_shapes

from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il


def test_a_killed_scoring_restarted_equals_one_never_killed(tmp_path: Path) -> None:
    whole, killed = (write_shapes(tmp_path / name, splits={"train": 300, "holdout": 20}, shard_rows=5) for name in "ab")
    for workspace in (whole, killed):
        train_il(workspace, ILTrainConfig(model="mlp", steps=2, device="cpu"))
    score_il(whole, ILScoreConfig(device="cpu"))
    command = [sys.executable, "-c", "from rhostream.cli.main import main; main()", "il", "score", "--workers", "1"]
    command += ["--device", "cpu", "--threads", "1", "--workspace", killed.location]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while finished(killed) < 5 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert 5 <= finished(killed) < 60
    subprocess.run(command, check=True, capture_output=True)
    assert len(parts(killed)) == 60
    assert parts(killed) == parts(whole)


def parts(workspace: Workspace) -> dict[str, bytes]:
    """All files of the table, temporary ones too."""
    return {path.name: path.read_bytes() for path in Path(workspace.path("il/mlp/scores")).glob("*")}


def finished(workspace: Workspace) -> int:
    return len(workspace.names("il/mlp/scores", ".parquet"))
