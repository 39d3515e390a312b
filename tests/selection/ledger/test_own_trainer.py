"""The ledger of a trainer that is not ours: written without a word to it, resumed exactly, explained and reported."""

import gc
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.dropin import loader_of, network, stream_of, tiny_workspace
from helpers.runs import ledger

from rhostream import WorkspaceError
from rhostream.cli.main import rho
from rhostream.loaders.storage.workspace import Workspace
from rhostream.selection import Ledger, OnlineSelector
from rhostream.selection.data_loader import selected_batch

SCRIPT = """
import sys
import rhostream as rho
from helpers.dropin import network, stream_of
selector = rho.OnlineSelector(network(), batch_size=4, ledger=rho.Ledger(sys.argv[1], "mine"))
for batch in selector(stream_of(sys.argv[1])):
    if selector.step == 7:
        break
"""
#: The same in a function, as the workers of a DataLoader ask for.
SCRIPT_WITH_MAIN = """
import sys
import rhostream as rho
from helpers.dropin import network, stream_of
from torch.utils.data import DataLoader

def main():
    selector = rho.OnlineSelector(network(), batch_size=4, ledger=rho.Ledger(sys.argv[1], "mine"))
    for batch in selector(DataLoader(stream_of(sys.argv[1]), batch_size=None, num_workers=2)):
        if selector.step == 7:
            break

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return tiny_workspace(tmp_path / "w")


def steps(workspace: Workspace) -> list[int]:
    return sorted({row["step"] for row in ledger(workspace, "mine")})


def files(workspace: Workspace) -> dict[str, bytes]:
    folders = ("runs/mine/ledger", "runs/mine/history")
    return {
        f"{folder}/{name}": workspace.read_bytes(f"{folder}/{name}")
        for folder in folders
        for name in workspace.names(folder)
    }


@pytest.mark.slow
@pytest.mark.parametrize("script", [SCRIPT, SCRIPT_WITH_MAIN], ids=["at the top", "in a function"])
def test_a_script_that_knows_no_flush_loses_no_row(workspace: Workspace, script: str) -> None:
    subprocess.run([sys.executable, "-c", script, workspace.location], cwd=Path(__file__).parents[2], check=True)
    assert steps(workspace) == list(range(1, 8))
    assert workspace.names("runs/mine/history") == ["rank0.parquet"]


def test_an_epochs_end_and_a_closed_block_write_the_rows(workspace: Workspace) -> None:
    with Ledger(workspace, "mine") as mine:
        for _ in OnlineSelector(network(), batch_size=4, ledger=mine)(stream_of(workspace)):
            assert workspace.names("runs/mine/ledger") == []
        assert steps(workspace) == list(range(1, 10))
        assert workspace.names("runs/mine/history") == []
    assert workspace.names("runs/mine/history") == ["rank0.parquet"]


@pytest.mark.parametrize("beyond", [0, 3])
def test_a_resumed_trainer_ends_with_the_same_ledger(workspace: Workspace, beyond: int) -> None:
    def trained(state: dict[str, object] | None, batches: int, checkpoint_at: int = 0) -> dict[str, object] | None:
        with Ledger(workspace, "mine") as mine:
            loader = loader_of(stream_of(workspace), network(), selected_batch, ledger=mine)
            if state is not None:
                loader.load_state_dict(state)
            saved = None
            for number, _ in enumerate(islice(loader, batches), start=1):
                saved = loader.state_dict() if number == checkpoint_at else saved
        return saved

    trained(None, 9)
    expected = files(workspace)
    workspace.remove("runs/mine")
    state = trained(None, 5 + beyond, checkpoint_at=5)  # what lies beyond the checkpoint is done again
    trained(state, 4)
    assert files(workspace) == expected


def test_a_run_that_has_a_ledger_is_not_begun_over(workspace: Workspace) -> None:
    def first_batch(**settings: bool) -> None:
        with Ledger(workspace, "mine", **settings) as mine:
            next(OnlineSelector(network(), batch_size=4, ledger=mine)(stream_of(workspace)))

    first_batch()
    before = files(workspace)
    with pytest.raises(WorkspaceError, match=r"run 'mine' has a ledger already, 1 files in .*: load the state of its"):
        first_batch()
    assert files(workspace) == before
    first_batch(overwrite=True)
    assert steps(workspace) == [1]


def test_a_ledger_that_was_replaced_writes_nothing_more(workspace: Workspace) -> None:
    old = Ledger(workspace, "mine")
    next(OnlineSelector(network(), batch_size=4, ledger=old)(stream_of(workspace)))
    new = Ledger(workspace, "mine")
    old.close()
    assert workspace.names("runs/mine/ledger") == []
    new.close()


def test_a_ledger_that_nobody_holds_is_written(workspace: Workspace) -> None:
    def train() -> None:
        selector = OnlineSelector(network(), batch_size=4, ledger=Ledger(workspace, "mine"))
        next(selector(stream_of(workspace)))

    train()
    gc.collect()
    assert steps(workspace) == [1]
    assert workspace.names("runs/mine/history") == ["rank0.parquet"]


@pytest.mark.slow
def test_explain_and_report_read_a_foreign_trainers_ledger(workspace: Workspace, tmp_path: Path) -> None:
    with Ledger(workspace, "mine") as mine:
        loader = loader_of(stream_of(workspace), network(), selected_batch, ledger=mine)
        for _ in range(2):
            list(loader)
    command = ["--workspace", workspace.location, "--run", "mine"]
    asked = CliRunner().invoke(rho, ["explain", "reasons", *command, "--format", "json"], catch_exceptions=False)
    assert asked.exit_code == 0, asked.output
    assert json.loads(asked.stdout)
    told = CliRunner().invoke(rho, ["status", "--workspace", workspace.location], catch_exceptions=False)
    assert "mine: the ledger of another trainer" in told.stdout
    output = str(tmp_path / "report.html")
    reported = CliRunner().invoke(rho, ["report", *command, "--output", output], catch_exceptions=False)
    assert reported.exit_code == 0, reported.output
    assert "mine" in Path(output).read_text()
