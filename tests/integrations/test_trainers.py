"""torchtitan and DeepSpeed, which `make trainers` installs into an environment of their own: the examples, on gloo."""

import os
import subprocess
from pathlib import Path

import pytest
from helpers.dropin import EXAMPLES, chosen, example_workspace

PYTHON = Path(__file__).parents[2] / ".venv-trainers/bin/python"
ON_CPUS = Path(__file__).parents[1] / "helpers/torchtitan_on_cpus.py"

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="torchtitan and DeepSpeed are not installed: make trainers")


def run(name: str, folder: Path, ranks: int, *arguments: str) -> None:
    script = EXAMPLES / f"{name}.py"
    files = [ON_CPUS, script] if name == "torchtitan_trainer" else [script]
    torchrun = [str(PYTHON), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    command = [*torchrun, *map(str, files), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize(
    ("name", "checkpoint", "steps", "ranks"),
    [
        ("torchtitan_trainer", "--output", ("1", "2"), 1),  # the second call names the steps of the whole run
        ("deepspeed_zero1", "--checkpoint", ("1", "1"), 2),  # its ZeRO goes on under as many ranks alone
    ],
)
def test_a_resumed_run_selects_as_an_undisturbed_one(
    name: str, checkpoint: str, steps: tuple[str, str], ranks: int, tmp_path: Path
) -> None:
    whole, resumed = (example_workspace(tmp_path / each) for each in ("whole", "resumed"))
    run(name, tmp_path, 2, whole.location, "--steps", "2")
    for count, each in zip((2, ranks), steps, strict=True):
        run(name, tmp_path, count, resumed.location, "--steps", each, checkpoint, "kept")
    ledger = name.partition("_")[0]
    assert [len(keys) for keys in chosen(whole, ledger)] == [32, 32]
    assert chosen(resumed, ledger) == chosen(whole, ledger)
