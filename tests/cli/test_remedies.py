"""An error's remedy: facts in the library, a command that can be typed on the command line."""

import ast
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from rhostream.cli.main import rho
from rhostream.cli.remedies import command, with_commands
from rhostream.errors import IrreducibleLossError, Remedy, Stage, WorkspaceError
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage import Workspace

ROOT = Path(__file__).parents[2]
#: Every setting that a remedy of the stage may name.
SETTINGS = {
    Stage.SHARDS: ("overwrite",),
    Stage.INDEX: ("overwrite",),
    Stage.THUMBNAILS: ("size", "format", "split", "overwrite"),
    Stage.TOKENS: ("split", "overwrite"),
    Stage.IL_TRAIN: ("name", "overwrite"),
    Stage.IL_SCORE: ("name", "only"),
    Stage.CORE_SET: ("name", "overwrite"),
    Stage.CLUSTER: ("name", "overwrite"),
    Stage.TRAIN: ("name", "select", "overwrite"),
    Stage.REPORT: (),
    Stage.MISLABELED: (),
}


@pytest.mark.parametrize("stage", Stage, ids=lambda stage: stage.name)
def test_remedy_of_every_stage_is_a_command_with_these_options(stage: Stage) -> None:
    settings: dict[str, str | bool] = {name: True if name == "overwrite" else "value" for name in SETTINGS[stage]}
    words = shlex.split(command(Remedy(stage, "a workspace", settings)))
    assert words[0] == "rho"
    found: click.Command = rho
    while isinstance(found, click.Group):
        name = words[1]
        inner = found.get_command(click.Context(found), name)
        assert inner is not None
        found, words = inner, words[1:]
    known = {flag for parameter in found.params for flag in parameter.opts}
    given = {word for word in words if word.startswith("--")}
    assert {"--workspace", *(f"--{name}" for name in settings)} <= given <= known
    assert "a workspace" in words


def test_remedies_are_words_in_the_library_commands_in_cli() -> None:
    train = Remedy(Stage.IL_TRAIN, "runs/w", {"name": "mine", "overwrite": True})
    error = IrreducibleLossError("IL table 'mine' is of other classes", train, Remedy(Stage.IL_SCORE, "runs/w"))
    words = "IL table 'mine' is of other classes: train the IL model (name mine, overwrite), then score the shards"
    assert str(error).startswith(words)
    assert with_commands(error) == (
        "IL table 'mine' is of other classes: run `rho il train --workspace runs/w --name mine --overwrite`, then "
        "`rho il score --workspace runs/w`"
    )


def test_an_il_model_is_trained_as_the_model_it_names() -> None:
    remedy = Remedy(Stage.IL_TRAIN, "w", {"name": "small_cnn", "overwrite": True})
    assert command(remedy) == "rho il train --workspace w --overwrite --model small_cnn"
    assert command(Remedy(Stage.IL_SCORE, "w", {"name": "small_cnn"})) == "rho il score --workspace w --name small_cnn"


def test_remedy_follows_an_alternative_without_a_colon() -> None:
    error = WorkspaceError("the tar has vanished: restore it, or", Remedy(Stage.THUMBNAILS, "w", {"size": "8"}))
    assert str(error) == "the tar has vanished: restore it, or make the thumbnails (size 8)"
    assert with_commands(error) == "the tar has vanished: restore it, or run `rho thumbnails --workspace w --size 8`"


def test_error_keeps_its_remedies_across_processes() -> None:
    error = WorkspaceError("gone", Remedy(Stage.SHARDS, "w", {"overwrite": True}))
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.remedies) == (str(error), error.remedies)


def test_command_line_names_the_command_the_library_does_not(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="write the shards") as raised:
        CorpusMetadata.read(Workspace(tmp_path))
    assert "rho " not in str(raised.value)
    rho = [sys.executable, "-c", "from rhostream.cli.main import main; main()"]
    done = subprocess.run([*rho, "thumbnails", "--workspace", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"run `rho shards --manifest FILE --workspace {tmp_path}`" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_loaders_and_selection_name_no_command() -> None:
    files = [
        file
        for room in ("loaders", "selection")
        for file in (ROOT / room).rglob("*.py*")
        if file.suffix in (".py", ".pyi")
    ]
    assert len(files) > 50
    named = [str(file.relative_to(ROOT)) for file in files if re.search(r"`rho ", file.read_text())]
    assert named == []


def test_messages_of_the_pipeline_name_no_command() -> None:
    # The help of a setting does: it is written for the command line.
    files = [file for file in (ROOT / "pipeline").rglob("*.py") if file.parent.name != "config"]
    assert len(files) > 50
    named = [f"{file.relative_to(ROOT)}:{line}" for file in files for line in _lines_naming_a_command(file)]
    assert named == []


def _lines_naming_a_command(file: Path) -> list[int]:
    """Of strings that are no docstrings."""
    tree = ast.parse(file.read_text())
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docs]
    return [node.lineno for node in texts if isinstance(node.value, str) and "`rho " in node.value]
