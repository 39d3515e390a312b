"""`make demo-pairs`, its commands as the Makefile has them, on few and small pictures."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from rhostream.cli.main import rho

ROOT = Path(__file__).parents[2]
FEW = {
    "images": 160, "holdout_images": 80, "test_images": 40, "shard_size": 150, "steps": 8, "batch_size": 16,
    "super_batch_size": 32, "evaluate_every": 3, "warmup": 2,
}  # fmt: skip


@pytest.mark.slow
def test_demo_of_pairs_ends_with_the_comparison_and_the_mismatches(tmp_path, monkeypatch):
    text = (ROOT / "data_manifests/synthetic_pairs.toml").read_text()
    for name, value in FEW.items():
        text = re.sub(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
    manifest = tmp_path / "synthetic_pairs.toml"
    manifest.write_text(re.sub(r"(?m)^root = .*$", f'root = "{tmp_path}/corpus"', text))
    asked = ["make", "--dry-run", "demo-pairs", "RHO=rho", f"MANIFEST={manifest}", f"WORKSPACE={tmp_path}/w"]
    printed = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    commands = [shlex.split(line)[1:] for line in printed.splitlines() if line.startswith("rho ")]
    assert [each[0] for each in commands] == ["shards", "il", "il", "train", "explain"]
    monkeypatch.setenv("RHO_WORKSPACE", f"{tmp_path}/w")
    said = []
    for command in commands:
        few = [re.sub(r"steps=\d+", "steps=6", word) for word in command]
        settings = {"shards": ["--workers", "0"], "train": ["--json"], "explain": ["--json"]}.get(few[0], [])
        done = CliRunner().invoke(rho, [*few, *settings], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        said.append(done.stdout)
    compared, listed = json.loads(said[3]), json.loads(said[4])
    assert [each["variant"] for each in compared["variants"]] == ["uniform", "learnability:steps=6", "jest:steps=6"]
    uniform, *chosen = (each["runs"][0] for each in compared["variants"])
    assert (uniform["measure"], uniform["seen"], uniform["trained"]) == ("recall@10", 128, 128)
    assert [(run["seen"], run["trained"]) for run in chosen] == [(192, 96)] * 2
    assert all(0.2 < run["candidates_mislabeled"] < 0.6 for run in (uniform, *chosen))
    assert Path(compared["plot"]).stat().st_size > 0
    assert {"text", "mismatched", "precision", "recall"} <= {*listed[0]}
