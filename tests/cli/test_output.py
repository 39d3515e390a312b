"""`--output` never writes over, or into, what a workspace holds."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import tables

from rhostream.cli.main import rho
from rhostream.errors import ConfigError


@pytest.mark.parametrize(
    "command",
    [
        ["report", "--output", "{}/corpus.json"],
        ["query", "FROM samples", "--output", "{}/index/train-000000.parquet"],
        ["export", "list", "--output", "{}/il/clean.csv"],
    ],
    ids=lambda command: command[0],
)
def test_output_in_a_workspaces_own_files_is_refused(command: list[str], tmp_path: Path) -> None:
    tables.fill(str(tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    arguments = [word.format(tmp_path) for word in command]
    result = CliRunner().invoke(rho, [*arguments, "--workspace", str(tmp_path)])
    assert isinstance(result.exception, ConfigError)
    assert "keeps its own files there" in str(result.exception)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
