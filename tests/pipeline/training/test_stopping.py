"""A run that signals stop keeps the step that it was at, and goes on from there as if it had not been stopped."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.runs import dying_after, signaled_at
from helpers.tiny import write_il, write_workspace

from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.training.loop import train

CONFIG = TrainConfig(
    select="rho_loss",
    name="r",
    model="mlp",
    batch_size=4,
    super_batch_size=16,
    steps=24,
    evaluate_every=6,
    device="cpu",
    threads=1,
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = write_workspace(tmp_path / "w", (40, 40, 20), test_rows=30)
    write_il(made)
    return made


def results(workspace: Workspace) -> dict[str, Any]:
    """All that the run came to, times and checkpoint aside."""
    folders = ("runs/r/ledger", "runs/r/history")
    names = [f"{folder}/{name}" for folder in folders for name in workspace.names(folder)]
    return {name: workspace.read_bytes(name) for name in (*names, "runs/r/model.safetensors")}


def timeless(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if "seconds_" not in name} for line in lines]


@pytest.mark.parametrize("settings", [{}, {"score_ahead": True}, {"share": 0.75}], ids=str)
@pytest.mark.parametrize("steps", [[1, 1], [5, 1, 3, 10], [12]], ids=str)
def test_a_stopped_run_goes_on_to_identical_results(
    workspace: Workspace, settings: dict[str, Any], steps: list[int]
) -> None:
    config, at = replace(CONFIG, **settings), 0
    whole = train(workspace, config)
    expected = results(workspace)
    workspace.remove("runs/r")
    for step in steps:
        at += step
        with signaled_at(step, signal.SIGINT, saying=f"run 'r' stopped by SIGINT at step {at} of 24: it is kept up to"):
            train(workspace, config)
    resumed = train(workspace, config)
    assert results(workspace) == expected
    assert timeless(resumed.metrics) == timeless(whole.metrics)


def test_a_second_signal_ends_it_and_tells_what_is_kept(workspace: Workspace) -> None:
    with signaled_at(3, signal.SIGINT, signal.SIGTERM, saying="at once by SIGTERM: nothing of it is kept, .* anew"):
        train(workspace, CONFIG)
    with signaled_at(9, signal.SIGTERM, signal.SIGINT, saying="at once by SIGINT: it is kept up to step 6 of 24, and"):
        train(workspace, CONFIG)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    train(workspace, CONFIG)
    expected = results(workspace)
    train(workspace, CONFIG, overwrite=True)
    assert results(workspace) == expected


def test_a_signal_in_the_last_step_lets_it_finish(workspace: Workspace) -> None:
    with pytest.raises(pytest.fail.Exception), signaled_at(24, signal.SIGTERM, saying="never"):
        train(workspace, CONFIG)
    assert workspace.exists("runs/r/model.safetensors")


def test_checkpoints_by_time_lose_no_step_and_change_nothing(workspace: Workspace) -> None:
    whole = train(workspace, CONFIG)
    expected = results(workspace)
    workspace.remove("runs/r")
    config = replace(CONFIG, checkpoint_minutes=1e-9)
    with dying_after(10):
        train(workspace, config)
    with signaled_at(1, signal.SIGTERM, saying="at step 11 of 24"):
        train(workspace, config)
    assert timeless(train(workspace, config).metrics) == timeless(whole.metrics)
    assert results(workspace) == expected


def test_an_ignored_signal_stays_ignored(workspace: Workspace) -> None:
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(pytest.fail.Exception), signaled_at(3, signal.SIGINT, saying="never"):
            train(workspace, CONFIG)
    finally:
        signal.signal(signal.SIGINT, former)
    assert workspace.exists("runs/r/model.safetensors")
