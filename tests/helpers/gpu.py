"""What the tests that need a GPU share."""

import math
import shutil
import sysconfig
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.runs import ledger
from rhostream.loaders.storage.workspace import Workspace

DEVICE = "cuda"
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="NOT TESTED on a GPU: torch sees no CUDA device here"
)
#: Triton builds its launcher with it.
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))) or not Path(sysconfig.get_path("include"), "Python.h").exists(),
    reason="NOT TESTED: torch.compile has no C compiler, or no Python.h, to work with",
)


def full_float32() -> AbstractContextManager[None]:
    """Within the block convolutions in float32 are that, as on a CPU; cuDNN uses TF32 unless told otherwise."""
    context: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    return context


def by_step(workspace: Workspace, run: str) -> tuple[dict[int, list[str]], dict[int, set[str]]]:
    """Keys of the candidates of each step, in order, and of the selected ones."""
    candidates: dict[int, list[str]] = {}
    selected: dict[int, set[str]] = {}
    for row in ledger(workspace, run):
        candidates.setdefault(row["step"], []).append(row["key"])
        selected.setdefault(row["step"], set()).update([row["key"]] if row["selected"] else [])
    return candidates, selected


def require_alike(workspace: Workspace, run: str, other: str) -> None:
    """Both have drawn the same candidates; a GPU's rounding may have changed one in ten of the selected."""
    (drawn, selected), (drawn_there, selected_there) = by_step(workspace, run), by_step(workspace, other)
    assert drawn == drawn_there
    common = sum(len(selected[step] & selected_there[step]) for step in selected)
    assert common >= 0.9 * sum(len(keys) for keys in selected.values()) > 0


def require_finite(metrics: list[dict[str, Any]]) -> None:
    for line in metrics:
        assert all(math.isfinite(value) for value in line.values() if isinstance(value, float)), line
