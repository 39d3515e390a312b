"""Text from a corpus, a URL or a store does no harm, wherever it is shown or kept."""

import ast
import csv
import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from helpers import report_workspace

from rhostream import ConfigError, RhostreamError
from rhostream.cli import main, output
from rhostream.loaders.storage import Workspace, remote
from rhostream.pipeline.config import load_manifest
from rhostream.pipeline.shards.clean_list import read_clean_list
from rhostream.pipeline.shards.unit import clean_text
from rhostream.plain_text import completed, csv_cell, from_csv_cell, hide_secrets, secrets_in, told, visible

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\x9b31mred \u202etxt.exe\u2066 \u2028\x85\x00"
ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
SIGNED = "https://h.example/x.tar?X-Amz-Credential=AKIAX&X-Amz-Signature=5ec4e7"
SECRETS = ("hunter2", "AKIAX", "5ec4e7", "t0ken")
URLS = [
    "https://alice:hunter2@h.example/x.tar",
    "https://t0ken@h.example/x.tar",
    "s3://key:hunter2@bucket/run",
    SIGNED,
    "https://h.example/x.tar?version=1&access_token=t0ken",
    "az://c/x?sv=1&sig=5ec4e7",
    "simplecache::https://alice:hunter2@h.example/x.tar",
]


def test_active_characters_are_escaped_and_letters_stay() -> None:
    assert not ACTIVE.search(visible(HOSTILE))
    assert visible("\x1b\u202e\x9b") == r"\x1b\u202e\x9b"
    for text in ("naïve 日本語 عربى 👩\u200d🚒", "two\nlines\tand a tab"):
        assert visible(text) == text


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_printed_tables_hold_no_active_character(form: str) -> None:
    stream = io.BytesIO()
    output._write(pa.table({f"name{HOSTILE}": [HOSTILE, None], "list": [[HOSTILE], []]}), form, stream)
    text = stream.getvalue().decode()
    assert not ACTIVE.search(text)
    if form == "json":
        assert json.loads(text)[0] == {f"name{HOSTILE}": HOSTILE, "list": [HOSTILE]}


def test_csv_cells_begin_no_formula_and_are_read_back(tmp_path: Path) -> None:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "'=1", "''=1", "'quoted", "plain", "-", ""]
    assert [from_csv_cell(csv_cell(text)) for text in texts] == texts
    stream = io.BytesIO()
    output._write(pa.table({"text": texts, "number": list(range(-9, 1))}), "csv", stream)
    rows = list(csv.reader(io.StringIO(stream.getvalue().decode())))[1:]
    assert not [text for text, _ in rows if text[:1] in tuple("=+-@\t\r") and text]
    assert [number for _, number in rows] == [str(number) for number in range(-9, 1)]
    (tmp_path / "l.csv").write_text("key,action,class\nk1,relabel,'=cat\n'-k2,drop,dog\n")
    found = read_clean_list(str(tmp_path / "l.csv")).to_pylist()
    told = [(row["key"], row["action"], row["class"]) for row in found]
    assert told == [("k1", "relabel", "=cat"), ("-k2", "drop", "dog")]


def test_commands_print_through_one_place() -> None:
    """Nothing else in cli writes to the terminal."""
    for file in (Path(__file__).parents[1] / "cli").glob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        echoes = [each for each in calls if ast.unparse(each) in ("click.echo", "print", "click.secho")]
        assert not echoes or file.name in ("output.py", "main.py"), file


def test_errors_are_one_visible_text() -> None:
    assert not ACTIVE.search(str(RhostreamError(f"class {HOSTILE!s} is unknown")))


def index(url: str, workspace: Path) -> None:
    result = CliRunner().invoke(main.rho, ["index", url, "--workspace", str(workspace)])
    assert isinstance(result.exception, ConfigError)
    raise result.exception


@pytest.mark.parametrize("url", URLS)
def test_secrets_of_urls_are_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    assert secrets_in(url)
    for refuse in (lambda: Workspace(url), lambda: remote.read(url), lambda: index(url, tmp_path / "w")):
        with pytest.raises(ConfigError, match=r"holds a secret .*write \$\{VARIABLE\} in its place") as error:
            refuse()
        assert not any(secret in str(error.value) for secret in SECRETS)
    with pytest.raises(ConfigError, match="holds a secret"):
        load_manifest(Path(__file__).parents[1] / "data_manifests" / "imagefolder.toml", {"root": url})
    assert not any(secret in told(f"{url}: gone, see '{url}'") for secret in SECRETS)
    assert "h.example" in told(url) or "bucket" in told(url) or "az://c" in told(url)
    assert not (tmp_path / "w" / "corpus.json").exists()


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/run",
        "abfs://container@account/run",
        "sftp://alice@host/run",
        "hf://datasets/a/b@main/x.tar",
        "https://h.example/x.tar?download=true",
        "https://${USER_AND_PASSWORD}@h.example/x.tar?sig=${SIGNATURE}",
    ],
)
def test_urls_without_secrets_stay_as_they_are(url: str) -> None:
    assert secrets_in(url) == []
    assert hide_secrets(f"see {url}.") == f"see {url}."


def test_references_are_completed_to_read_and_come_back_in_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNATURE", "5ec/4e7+")
    reference = "https://h.example/x.tar?sig=${SIGNATURE}"
    assert completed(reference) == "https://h.example/x.tar?sig=5ec/4e7+"
    for form in (completed(reference), "403 for https://h.example/x.tar?sig=5ec%2F4e7%2B"):
        assert "5ec" not in str(RhostreamError(form))
        assert "${SIGNATURE}" in str(RhostreamError(form))
    monkeypatch.setenv("TOKEN", "a-long-token")
    completed("https://h.example/x.tar?t=${TOKEN}")
    assert hide_secrets("403 for /x.tar?t=a-long-token") == "403 for /x.tar?t=${TOKEN}"
    assert hide_secrets("403 for '/x.tar?token=other'") == "403 for '/x.tar?token=***'"
    monkeypatch.setenv("WHERE", "store")
    Workspace("memory://test_${WHERE}/w").write_bytes("a", b"x")
    assert Workspace("memory://test_store/w").read_bytes("a") == b"x"
    monkeypatch.delenv("WHERE")
    with pytest.raises(ConfigError, match="the environment variable WHERE is not set"):
        Workspace("memory://test_${WHERE}/w")


def test_what_a_corpus_says_is_kept_without_secrets() -> None:
    assert clean_text(f"fetched from {SIGNED}") == "fetched from https://h.example/x.tar?X-Amz-Credential=***" + (
        "&X-Amz-Signature=***"
    )


@pytest.mark.slow
def test_hostile_classes_reach_neither_terminal_nor_page(tmp_path: Path) -> None:
    workspace = report_workspace.fill(tmp_path / "w")
    for name in workspace.names("index"):
        file = f"index/{name}"
        rows = workspace.read_table(file)
        names = pa.array([f"={name}{HOSTILE}" for name in rows["class"].to_pylist()])
        changed = rows.set_column(rows.column_names.index("class"), rows.schema.field("class"), names)
        workspace.write_table(file, changed.replace_schema_metadata(rows.schema.metadata))
    place = ["--workspace", workspace.location]
    for command in (
        ["query", "SELECT class FROM samples"],
        ["query", "SELECT class FROM samples", "--format", "csv"],
        ["explain", "classes", "--run", "rho_loss"],
        ["explain", "classes", "--run", "rho_loss", "--class", "nobody"],
        ["export", "list", "--output", str(tmp_path / "clean.csv")],
        ["report", "--output", str(tmp_path / "r.html")],
    ):
        result = CliRunner().invoke(main.rho, [*command, *place])
        assert not ACTIVE.search(result.output + str(result.exception))
    assert "owned" in (tmp_path / "clean.csv").read_text()
    assert not ACTIVE.search((tmp_path / "r.html").read_text() + (tmp_path / "clean.csv").read_text())
