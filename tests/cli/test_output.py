"""`--output` of every command: nothing is lost to it, and what it names is whole."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from helpers import report_workspace

from rhostream.cli.main import rho
from rhostream.cli.output import print_table
from rhostream.errors import ConfigError
from rhostream.loaders.storage import OWNED
from rhostream.pipeline.export import clean_list, write_cleaned_manifest
from rhostream.pipeline.report import write_report

#: Every command that has an `--output`, with what else it takes, and how its file ends; "" for a folder.
COMMANDS = {
    "query": (["FROM samples"], ".csv"),
    "explain": (["reasons", "--run", "rho_loss"], ".json"),
    "report": (["--run", "rho_loss"], ".html"),
    "init": (["table"], ".toml"),
    "export list": ([], ".csv"),
    "export manifest": (["--clean-list", "{workspace}/../clean.parquet"], ".toml"),
    "export webdataset": (["--sql", "SELECT key FROM samples LIMIT 3"], ""),
    "export fiftyone": (["--sql", "SELECT key FROM samples LIMIT 3"], ""),
}


def cases(names: Iterable[str]) -> list[Any]:
    """Of a test of these commands; a report takes its time."""
    return [pytest.param(name, marks=pytest.mark.slow) if name == "report" else name for name in sorted(names)]


FILES = cases(name for name, (_, suffix) in COMMANDS.items() if suffix)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("outputs") / "w"
    place = report_workspace.fill(folder)
    corpus = place.read_json("corpus.json")
    place.write_json("corpus.json", corpus | {"manifest": {"name": "n", "format": "table"} | corpus["manifest"]})
    pq.write_table(clean_list(str(folder)), folder.parent / "clean.parquet")
    return folder


def run(name: str, workspace: Path, output: Path, *more: str) -> Result:
    arguments = [word.format(workspace=workspace) for word in COMMANDS[name][0]]
    place = [] if name == "init" else ["--workspace", str(workspace)]
    return CliRunner().invoke(rho, [*name.split(), *arguments, *place, "--output", str(output), *more])


def commands_with(option: str, group: click.Command, path: tuple[str, ...] = ()) -> set[str]:
    if isinstance(group, click.Group):
        context = click.Context(group)
        named = ((name, group.get_command(context, name)) for name in group.list_commands(context))
        return {found for name, each in named if each for found in commands_with(option, each, (*path, name))}
    return {" ".join(path)} if not option or any(option in each.opts for each in group.params) else set()


def test_no_command_with_an_output_is_left_out() -> None:
    assert commands_with("--output", rho) == commands_with("--force", rho) == set(COMMANDS)


def test_all_that_stages_write_is_owned(workspace: Path) -> None:
    assert {path.name for path in workspace.iterdir()} <= OWNED


@pytest.mark.parametrize("name", sorted(COMMANDS))
@pytest.mark.parametrize("inside", ["index/x", "runs/rho_loss/x", "corpus.json"])
def test_no_output_is_written_into_a_workspaces_own_files(name: str, inside: str, workspace: Path) -> None:
    before = {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()}
    result = run(name, workspace, workspace / inside, *(["--force"] if "x" in inside else []))
    if name == "export list" and not inside.endswith("x"):
        assert "ends in .parquet or .csv" in str(result.exception)
    elif name != "export list":
        assert isinstance(result.exception, ConfigError)
        assert "keeps its own files there" in str(result.exception)
    assert result.exit_code
    assert {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", FILES)
def test_another_workspaces_file_and_a_link_to_it_are_refused(name: str, workspace: Path, tmp_path: Path) -> None:
    other = tmp_path / f"other{COMMANDS[name][1]}"
    (tmp_path / "w2" / "index").mkdir(parents=True)
    (tmp_path / "w2" / "corpus.json").write_text("{}")
    other.symlink_to(tmp_path / "w2" / "index" / f"y{COMMANDS[name][1]}")
    result = run(name, workspace, other, "--force")
    assert "w2 keeps its own files there" in str(result.exception)
    assert not list((tmp_path / "w2" / "index").iterdir())


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_others_is_overwritten_by_force_alone(name: str, workspace: Path, tmp_path: Path) -> None:
    file = tmp_path / f"mine{COMMANDS[name][1]}"
    file.write_text("my labels")
    refused = run(name, workspace, file)
    assert "is there already" in str(refused.exception)
    assert "--force" in str(refused.exception)
    assert file.read_text() == "my labels"
    assert run(name, workspace, file, "--force").exit_code == 0
    assert file.read_text(errors="replace") != "my labels"


@pytest.mark.parametrize("name", FILES)
def test_a_result_is_written_again_until_it_is_edited(name: str, workspace: Path, tmp_path: Path) -> None:
    file = tmp_path / f"result{COMMANDS[name][1]}"
    for _ in range(2):
        assert run(name, workspace, file).exit_code == 0
    file.write_bytes(file.read_bytes() + b"my note")
    assert "is there already" in str(run(name, workspace, file).exception)
    assert file.read_bytes().endswith(b"my note")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_folder_mistyped_is_named_and_not_made(name: str, workspace: Path, tmp_path: Path) -> None:
    result = run(name, workspace, tmp_path / "typo" / f"file{COMMANDS[name][1]}")
    assert f"there is no folder {tmp_path}/typo" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_a_result_that_cannot_be_formatted_leaves_the_last_one(workspace: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    assert run("query", workspace, file).exit_code == 0
    before = file.read_bytes()
    sql = ["query", "SELECT union_value(a := 1) AS u", "--workspace", str(workspace), "--output", str(file)]
    assert "Parquet cannot hold this result" in str(CliRunner().invoke(rho, sql).exception)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_a_pipe_takes_the_rows(workspace: Path) -> None:
    result = run("query", workspace, Path("/dev/null"))
    assert result.exit_code == 0
    assert Path("/dev/null").is_char_device()


def test_the_library_writes_by_the_same_rules(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    lists = str(workspace.parent / "clean.parquet")
    with pytest.raises(ConfigError, match="is there already"):
        write_report(workspace, str(tmp_path / "mine"))
    with pytest.raises(ConfigError, match="is there already"):
        write_cleaned_manifest(str(workspace), lists, str(tmp_path / "mine"))
    with pytest.raises(ConfigError, match="keeps its own files"):
        write_report(workspace, f"{workspace}/il/report.html", force=True)
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("name", cases(set(COMMANDS) - {"query", "explain"}))
def test_what_was_made_is_told_as_json_too(name: str, workspace: Path, tmp_path: Path) -> None:
    result = run(name, workspace, tmp_path / f"out{COMMANDS[name][1]}", "--json")
    assert json.loads(result.stdout)["output"] == str(tmp_path / f"out{COMMANDS[name][1]}")


def test_every_command_that_prints_does_so_as_json() -> None:
    assert commands_with("", rho) == commands_with("--json", rho)


def test_json_is_a_format_of_rows_and_of_views(workspace: Path) -> None:
    place = ["--workspace", str(workspace)]
    shown = [CliRunner().invoke(rho, [*asked, *place, "--json"]).stdout for asked in (["query", "FROM il"], ["views"])]
    assert "il_model" in json.loads(shown[0])[0]
    assert all("VIEW" in statement for statement in json.loads(shown[1])["statements"])


def test_tables_give_few_digits_and_json_gives_all(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    table = pa.table({"share": [0.39840782558926063, 0.5, None], "tiny": [3e-9, 0.25, 1.0], "count": [10**12, 1, 2]})
    print_table(table, "table")
    lines = capsysbinary.readouterr().out.decode().splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["0.3984", "3e-09", "1000000000000"],
        ["0.5000", "0.250", "1"],
        ["NULL", "1.000", "2"],
    ]
    print_table(table, "json")
    assert json.loads(capsysbinary.readouterr().out)[0]["share"] == 0.39840782558926063


def test_lists_are_wrapped_and_no_rows_said(workspace: Path) -> None:
    place = ["--workspace", str(workspace)]
    shown = CliRunner().invoke(rho, ["query", "SHOW ALL TABLES", *place]).stdout
    assert max(map(len, shown.splitlines())) < 180
    assert '"cpu_seconds_so_far"' in shown
    assert CliRunner().invoke(rho, ["query", "FROM samples WHERE false", *place]).stdout.endswith("(no rows)\n")
