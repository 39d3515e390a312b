"""What the tests of the drop-ins share: a tiny workspace, a tiny network, a note of what passed through a loader."""

import runpy
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from helpers.tiny import write_il, write_workspace
from rhostream.loaders import CandidateStream, Order, Workspace
from rhostream.selection import OnlineSelector, SelectingLoader

EXAMPLES = Path(__file__).parents[2] / "examples"
ROWS = (37, 20, 41, 5, 30, 12)
TOTAL = sum(ROWS)
ALL = {f"s{number}" for number in range(TOTAL)}
SUPER_BATCH, BATCH = 16, 4


def tiny_workspace(folder: Path) -> Workspace:
    """145 train samples: 9 super-batches of 16."""
    workspace = write_workspace(folder, ROWS)
    write_il(workspace)
    return workspace


def stream_of(workspace: Workspace | str, **settings: Any) -> CandidateStream:
    defaults = {"il": "strided_cnn", "super_batch_size": SUPER_BATCH, "order": Order(block_shards=2, last="keep")}
    return CandidateStream(workspace, **(defaults | settings))


def network() -> nn.Sequential:
    """With BatchNorm and dropout, always of the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 3)
    )


class Recording:
    """A collate that notes the candidates and the selected of every batch before it hands the batch on.

    Attributes:
        candidates: keys of each super-batch.
        selected: keys of each batch.
        epochs: of each batch.
    """

    def __init__(self, collate: Any) -> None:
        self._collate = collate
        self.candidates: list[list[str]] = []
        self.selected: list[list[str]] = []
        self.epochs: list[int] = []

    def __call__(self, batch: Any) -> Any:
        self.candidates.append(batch.super_batch.keys)
        self.selected.append(batch.keys)
        self.epochs.append(batch.super_batch.epoch)
        return self._collate(batch)


def loader_of(
    source: Any, model: nn.Module, collate: Any, epoch_steps: int | None = None, **settings: Any
) -> SelectingLoader:
    selector = OnlineSelector(model, batch_size=BATCH, **settings)
    return SelectingLoader(source, selector, collate, epoch_steps=epoch_steps)


def sequence(workspace: Workspace | str, epochs: int) -> list[list[str]]:
    """The keys of every super-batch of so many epochs on one rank, read without any trainer."""
    stream = stream_of(workspace)
    return [batch.keys for _ in range(epochs) for batch in stream]


def chosen(workspace: Workspace, run: str) -> list[list[str]]:
    """The selected keys of each step of a run, as its ledger tells."""
    folder = f"runs/{run}/ledger"
    rows = [row for part in workspace.names(folder) for row in workspace.read_table(f"{folder}/{part}").to_pylist()]
    steps = sorted({row["step"] for row in rows})
    return [sorted(row["key"] for row in rows if row["step"] == step and row["selected"]) for step in steps]


def run_example(name: str, monkeypatch: Any, *arguments: object) -> dict[str, Any]:
    """Run an example as a script in this process; its global names afterwards."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def example_workspace(folder: Path) -> Workspace:
    """960 train samples: an epoch of three super-batches of 320."""
    workspace = write_workspace(folder, (400, 400, 160))
    write_il(workspace)
    return workspace
