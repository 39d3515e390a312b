"""The offline stages and `rho train` on a GPU: as on the CPU, but for its rounding."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from helpers.corpus_fixture import write_shapes
from helpers.dropin import EXAMPLES, example_workspace, run_example
from helpers.gpu import DEVICE, by_step, full_float32, needs_gpu, require_alike, require_finite
from helpers.runs import ledger
from helpers.tiny import write_il, write_workspace

from rhostream import ConfigError
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.il.metadata import il_costs
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.models.costs import Costs
from rhostream.pipeline.models.device import choose_device, resolve_precision
from rhostream.pipeline.training.loop import train

pytestmark = needs_gpu

CONFIG = TrainConfig(
    select="rho_loss",
    model="bn_cnn",
    batch_size=4,
    super_batch_size=16,
    steps=24,
    evaluate_every=6,
    device=DEVICE,
    threads=2,
    tensorboard=False,
)
KILLED_AFTER = (4, 10)  # evaluations, of 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """120 training samples, an IL model and its table; made on the CPU."""
    workspace = write_shapes(tmp_path_factory.mktemp("w"), splits={"train": 120, "holdout": 60, "test": 40}, noise=0.2)
    train_il(workspace, ILTrainConfig(steps=4, device="cpu"))
    score_il(workspace, ILScoreConfig(device="cpu"))
    return workspace


def il_table(workspace: Workspace, **settings: Any) -> pa.Table:
    """Scored anew."""
    score_il(workspace, ILScoreConfig(**settings, overwrite=True))
    folder = "il/bn_cnn/scores"
    return pa.concat_tables([workspace.read_table(f"{folder}/{file}") for file in workspace.names(folder)])


def shapes_with_il_model(folder: Path, device: str) -> Workspace:
    workspace = write_shapes(folder, splits={"train": 120, "holdout": 60}, shard_rows=50)
    train_il(workspace, ILTrainConfig(model="bn_cnn", steps=4, device=device, precision="float32"))
    return workspace


def test_an_il_table_agrees_with_the_cpus_for_equal_weights(tmp_path: Path) -> None:
    workspace = shapes_with_il_model(tmp_path, DEVICE)
    with full_float32():
        here = il_table(workspace, device=DEVICE)
    there = il_table(workspace, device="cpu")
    assert here.num_rows == 120
    for name in ("il", "confidence", "entropy"):
        np.testing.assert_allclose(here[name].to_numpy(), there[name].to_numpy(), atol=1e-4, err_msg=name)
    for name in ("key", "label", "predicted", "in_sample"):
        assert here[name].to_pylist() == there[name].to_pylist(), name
    fast = il_table(workspace, device=DEVICE, precision="auto")
    np.testing.assert_allclose(fast["il"].to_numpy(), there["il"].to_numpy(), atol=0.1)


def test_processes_that_share_a_gpu_give_the_same_il_table(tmp_path: Path) -> None:
    workspace = shapes_with_il_model(tmp_path, DEVICE)
    alone, shared = il_table(workspace, device=DEVICE), il_table(workspace, device=DEVICE, workers=2)
    assert shared["predicted"].to_pylist() == alone["predicted"].to_pylist()
    np.testing.assert_allclose(shared["il"].to_numpy(), alone["il"].to_numpy(), atol=1e-4)


def test_an_il_model_costs_seconds_and_the_cpus_flops(tmp_path: Path) -> None:
    spent = {}
    for device in (DEVICE, "cpu"):
        workspace = shapes_with_il_model(tmp_path / device, device)
        il_table(workspace, device=device)
        spent[device] = il_costs(workspace, "bn_cnn")
        assert all(value > 0 for value in spent[device]["seconds"].values())
    assert spent[DEVICE]["flops"] == spent["cpu"]["flops"]
    assert all(value > 0 for value in spent["cpu"]["flops"].values())


def test_unfinished_gpu_work_is_charged_to_what_began_it() -> None:
    costs = Costs(choose_device(DEVICE))
    with costs.charge("score"):
        torch.cuda._sleep(200_000_000)  # cycles, a tenth of a second; returns at once
    with costs.charge("train"):
        pass
    assert costs.seconds["score"] > 0.03 > 10 * costs.seconds["train"]


@pytest.mark.parametrize("model", ["mlp", "bn_cnn"])
def test_the_first_selection_candidates_and_flops_equal_the_cpus(made: Workspace, model: str) -> None:
    config, runs = replace(CONFIG, model=model, precision="float32"), {}
    for device in (DEVICE, "cpu"):
        with full_float32():
            runs[device] = train(made, replace(config, device=device, name=f"{model}-{device}"))
    (drawn, selected), (drawn_there, selected_there) = (by_step(made, run.name) for run in runs.values())
    assert drawn == drawn_there
    assert selected[1] == selected_there[1]
    here, there = ([row for row in ledger(made, run.name) if row["step"] == 1] for run in runs.values())
    for name in ("loss", "il", "score"):
        assert [row[name] for row in here] == pytest.approx([row[name] for row in there], abs=1e-4), name
    for cost in ("score", "train", "evaluate"):
        assert [line[f"flops_{cost}"] for line in runs[DEVICE].metrics] == [
            line[f"flops_{cost}"] for line in runs["cpu"].metrics
        ], cost


def test_a_run_at_device_precision_learns_and_records_every_candidate(made: Workspace) -> None:
    fast = torch.cuda.get_device_capability() >= (8, 0)
    assert resolve_precision(choose_device(DEVICE), "auto") == ("bfloat16" if fast else "float32")
    run = train(made, replace(CONFIG, name="learns", batch_size=8, steps=160, evaluate_every=40))
    require_finite(run.metrics)
    assert [line["step"] for line in run.metrics] == [40, 80, 120, 160]
    assert run.metrics[-1]["test_loss"] < run.metrics[0]["test_loss"]
    assert run.metrics[-1]["test_accuracy"] > 0.6
    assert all(run.metrics[-1][f"seconds_{cost}"] > 0 for cost in ("load", "score", "train", "evaluate"))
    rows = ledger(made, "learns")
    assert len(rows) == 20 * 120  # epochs of 8 super-batches
    for epoch in (0, 19):
        assert sorted(row["key"] for row in rows if row["epoch"] == epoch) == [f"k{n:06d}" for n in range(120)]
    assert sum(row["selected"] for row in rows) == sum(line["selected"] for line in run.metrics)


def rho_train(workspace: Workspace, name: str, *settings: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "import sys; from rhostream.cli.main import main; sys.exit(main())", "train"]
    command += ["--workspace", workspace.location, "--name", name, "--device", DEVICE, *settings]
    with Path(workspace.path(f"{name}.log")).open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def evaluations(workspace: Workspace, name: str) -> int:
    file = Path(workspace.path(f"runs/{name}/metrics.jsonl"))
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def test_a_killed_run_nearly_always_selects_as_an_uninterrupted_one(tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path / "w", (80, 80, 40), test_rows=30, side=16)
    write_il(workspace)
    settings = ["--model", "bn_cnn", "--batch-size", "8", "--super-batch-size", "40", "--learning-rate", "0.0003"]
    settings += ["--steps", "400", "--evaluate-every", "20", "--augmentation", "shift_flip", "--threads", "2"]
    settings += ["--no-tensorboard"]
    whole = rho_train(workspace, "whole", *settings)
    for after in KILLED_AFTER:
        process = rho_train(workspace, "killed", *settings)
        while evaluations(workspace, "killed") < after and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL, Path(workspace.path("killed.log")).read_text()
    last = rho_train(workspace, "killed", *settings)
    for name, process in (("whole", whole), ("killed", last)):
        assert process.wait() == 0, Path(workspace.path(f"{name}.log")).read_text()
        assert evaluations(workspace, name) == 20
    require_alike(workspace, "whole", "killed")


@pytest.mark.parametrize("stage", [train, train_il, score_il])
def test_a_gpu_that_is_not_there_is_one_clear_error(made: Workspace, stage: Any) -> None:
    device = f"cuda:{max(7, torch.cuda.device_count())}"
    config = {
        train: replace(CONFIG, device=device),
        train_il: ILTrainConfig(device=device, name="other"),
        score_il: ILScoreConfig(device=device),
    }[stage]
    with pytest.raises(ConfigError, match=rf"device '{device}': this machine has \d+ CUDA device\(s\), cuda:0 to"):
        stage(made, config)


def test_the_plain_example_trains_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchvision")
    example_workspace(tmp_path / "w")
    names = run_example("plain_pytorch", monkeypatch, tmp_path / "w", "--steps", 2)
    assert {parameter.device.type for parameter in names["model"].parameters()} == {DEVICE}
    assert names["batch"].images.device.type == DEVICE
    assert "step 2: loss" in capsys.readouterr().out


def test_the_ddp_example_trains_on_the_gpu(tmp_path: Path) -> None:
    example_workspace(tmp_path / "w")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, str(EXAMPLES / "ddp.py"), str(tmp_path / "w"), "--steps", "4"]
    done = subprocess.run(command, env=os.environ | group, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert "rank 0, step 4 of epoch 1: loss" in done.stdout
