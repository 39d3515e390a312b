"""Checkpoints hold what reading accepts, and a damaged one is noticed."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from rhostream.errors import WorkspaceError
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.models import load_checkpoint, save_checkpoint

STATE = {
    "step": 7,
    "weights": {"layer": torch.arange(600, dtype=torch.float32).reshape(20, 30), "bias": torch.ones(3)},
    "notes": ["a", None, True, 0.5, ("x", 2)],
}


def equal(first: object, second: object) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return (
            isinstance(second, dict)
            and first.keys() == second.keys()
            and all(equal(first[name], second[name]) for name in first)
        )
    return type(first) is type(second) and first == second


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert load_checkpoint(workspace, "last.pt", "") is None
    save_checkpoint(workspace, "last.pt", STATE)
    assert equal(load_checkpoint(workspace, "last.pt", ""), STATE)


@pytest.mark.parametrize(
    "value", [np.float64(0.5), np.arange(3), {1, 2}, Path("x")], ids=lambda value: type(value).__name__
)
def test_saving_refuses_what_reading_would_refuse(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match=r"state\['policy'\]\[1\] is a "):
        save_checkpoint(Workspace(tmp_path), "last.pt", {"policy": [0.5, value]})
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.slow
def test_no_flipped_bit_changes_a_checkpoint_in_silence(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    save_checkpoint(workspace, "last.pt", STATE)
    whole = workspace.read_bytes("last.pt")
    chance, noticed = random.Random(0), 0
    for number in range(400):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        workspace.write_bytes(
            "last.pt", bytes(damaged[: chance.randrange(len(whole))] if number % 10 == 0 else damaged)
        )
        try:
            assert equal(load_checkpoint(workspace, "last.pt", "start afresh"), STATE)
        except WorkspaceError as error:
            assert str(error).endswith("it was damaged after it was written; start afresh")  # noqa: PT017
            noticed += 1
    assert noticed > 150
