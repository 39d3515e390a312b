"""The script of the shape of PyTorch's ImageNet example."""

from pathlib import Path

import pytest
import torch
from helpers.dropin import run_example
from helpers.runs import ledger
from helpers.tiny import write_il, write_workspace


def test_the_example_keeps_its_epochs_and_resumes_with_its_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = write_workspace(tmp_path / "w", (200, 200, 80), test_rows=20)
    write_il(workspace)
    checkpoint = tmp_path / "checkpoint.pt"
    for epochs in (1, 2):
        arguments = (
            tmp_path / "w",
            "--arch",
            "shufflenet_v2_x0_5",
            "--batch-size",
            48,
            "--lr",
            0.01,
            "--epochs",
            epochs,
            "--resume",
            checkpoint,
        )
        run_example("imagenet", monkeypatch, *arguments)
    said = [line.split(",")[0] for line in capsys.readouterr().out.splitlines()]
    assert said == ["epoch 0: 10 steps", "epoch 1: 10 steps"]
    assert sorted({row["step"] for row in ledger(workspace, "imagenet")}) == list(range(1, 21))
    assert torch.load(checkpoint, weights_only=True)["scheduler"]["last_epoch"] == 2
