"""`rho query`: the formats of its answers, where they go, and how it ends."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from helpers import tables

from rhostream import ConfigError
from rhostream.cli.query import query as query_command
from rhostream.loaders.storage.workspace import Workspace

Ask = Callable[..., bytes]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return tables.fill(str(tmp_path_factory.mktemp("workspace")))


@pytest.fixture
def ask(workspace: Workspace) -> Ask:
    def run(*arguments: str, stdin: str = "", code: int = 0) -> bytes:
        result = CliRunner().invoke(query_command, ["--workspace", workspace.location, *arguments], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.stdout_bytes

    return run


VALUES = """
SELECT 'a,"b"' AS text, '' AS nothing, NULL::INT AS missing, sum(x) AS total, 1.50 AS exact, 0.1::FLOAT AS single,
       1 / 3 AS double, 'nan'::FLOAT AS nan, '-inf'::DOUBLE AS infinity, [1, NULL] AS list, ['nan'::DOUBLE] AS nans,
       {'a': [DATE '2024-02-03']} AS struct, MAP {1: true} AS map, TIMESTAMP '2024-02-03 01:02:03.5' AS moment,
       'x'::BLOB AS bytes, true AS yes, 'two
lines ü' AS lines
FROM range(3) AS r(x)
"""


def test_json_keeps_every_value(ask: Ask) -> None:
    assert json.loads(ask(VALUES, "--format", "json"), parse_constant=pytest.fail) == [
        {
            "text": 'a,"b"',
            "nothing": "",
            "missing": None,
            "total": 3,
            "exact": 1.5,
            "single": 0.1,
            "double": 1 / 3,
            "nan": None,
            "infinity": None,
            "list": [1, None],
            "nans": [None],
            "struct": {"a": ["2024-02-03"]},
            "map": {"1": True},
            "moment": "2024-02-03T01:02:03.500000",
            "bytes": "eA==",
            "yes": True,
            "lines": "two\nlines ü",
        }
    ]
    assert json.loads(ask("SELECT * FROM range(3)", "--format", "json")) == [{"range": n} for n in range(3)]
    assert json.loads(ask("FROM range(0)", "--format", "json")) == []


def test_csv_keeps_every_value(ask: Ask) -> None:
    (row,) = csv.DictReader(io.StringIO(ask(VALUES, "--format", "csv").decode(), newline=""))
    assert row["text"] == 'a,"b"'
    assert row["missing"] == ""
    assert (row["total"], row["single"], row["double"]) == ("3", "0.1", repr(1 / 3))
    assert (row["nan"], row["infinity"], row["yes"]) == ("nan", "-inf", "true")
    assert json.loads(row["list"]) == [1, None]
    assert json.loads(row["struct"]) == {"a": ["2024-02-03"]}
    assert row["lines"] == "two\nlines ü"


def test_a_table_is_aligned_and_cuts_no_value(ask: Ask) -> None:
    lines = ask("SELECT * FROM (VALUES ('a', 1, NULL), (repeat('x', 300), 1000, 2)) AS t(name, number, n)").decode()
    header, rule, first, second = lines.splitlines()
    assert header == f"{'name':300}  number     n"
    assert rule == f"{'-' * 300}  ------  ----"
    assert first == f"{'a':300}       1  NULL"
    assert second == f"{'x' * 300}    1000     2"
    assert len(ask(VALUES).decode().splitlines()) == 3


def test_parquet_keeps_the_types(ask: Ask) -> None:
    written = ask("SELECT key, il, selected, label FROM ledger", "--format", "parquet")
    read = pq.read_table(io.BytesIO(written))
    assert read.num_rows == 69
    assert read.schema.types == [pa.string(), pa.float32(), pa.bool_(), pa.int32()]


def test_a_type_that_parquet_lacks_error_names_the_remedy(ask: Ask) -> None:
    with pytest.raises(ConfigError, match="VARCHAR"):
        ask("SELECT INTERVAL 1 DAY", "--format", "parquet")


@pytest.mark.slow
def test_parquet_is_refused_on_a_terminal(workspace: Workspace) -> None:
    pty = pytest.importorskip("pty", reason="NOT TESTED: this system has no pseudo-terminals")
    ours, theirs = pty.openpty()
    program = "from rhostream.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "query", "SELECT 1", "--format", "parquet", "--workspace", workspace.location],
        stdout=theirs,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 2
    assert b"not for a terminal" in done.stderr


@pytest.mark.parametrize("suffix", ["parquet", "csv", "json"])
def test_the_suffix_of_the_output_file_chooses_the_format(ask: Ask, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    assert ask("SELECT key FROM samples ORDER BY key", "--output", str(path)) == b""
    with duckdb.connect() as connection:
        read = connection.execute(f"SELECT count(*), min(key) FROM '{path}'").fetchone()
    assert read == (14, "h00")


def test_an_output_file_in_no_folder_error_names_the_remedy(ask: Ask, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no folder .*; name a file in one that exists"):
        ask("SELECT 1", "--output", str(tmp_path / "none" / "x.csv"))


def test_sql_comes_from_stdin(ask: Ask) -> None:
    assert ask("-", "--format", "csv", stdin="SELECT 1 AS a\n-- a comment\n;\n") == b"a\n1\n"


@pytest.mark.parametrize("sql", ["SHOW ALL TABLES", "SHOW TABLES", "DESCRIBE samples", "SUMMARIZE il", "VALUES (1)"])
def test_statements_that_describe_are_answered(ask: Ask, sql: str) -> None:
    assert len(json.loads(ask(sql, "--format", "json"))) > 0


def test_a_plan_is_drawn_as_duckdb_draws_it(ask: Ask) -> None:
    for sql in ("EXPLAIN FROM samples", "EXPLAIN ANALYZE FROM samples", "explain (format json) SELECT 1"):
        assert len(ask(sql).decode().splitlines()) > 3, sql


@pytest.mark.parametrize("form", ["table", "json", "csv"])
@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("'infinity'::DATE", "infinity"),
        ("'-infinity'::TIMESTAMP", "-infinity"),
        ("'290000-01-01'::TIMESTAMP", "9089348860800000000"),
        ("'0044-03-15 (BC)'::DATE", "-0043-03-15"),
        ("{'a': {'b': ['infinity'::TIMESTAMPTZ]}}", "infinity"),
        ("MAP {'when': 'infinity'::DATE}", "infinity"),
        ("MAP {['deep']: 1}", "deep"),
        ("MAP {MAP {{'deep': 1}: 2}: 3}", "deep"),
    ],
)
def test_values_that_python_lacks_are_printed(ask: Ask, form: str, sql: str, text: str) -> None:
    assert text in ask(f"SELECT {sql} AS a UNION ALL SELECT NULL", "--format", form).decode()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("sql", ["FROM range(30000000)", "SELECT count(*) FROM range(100000) a, range(100000) b"])
def test_a_query_ended_by_a_signal_leaves_nothing(workspace: Workspace, tmp_path: Path, number: int, sql: str) -> None:
    """While DuckDB is at work, or while its rows are written."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    program = "from rhostream.cli.main import main; main()"
    output = str(tmp_path / "rows.csv")
    process = subprocess.Popen(
        [sys.executable, "-c", program, "query", sql, "--workspace", workspace.location, "--output", output],
        env={**os.environ, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    begun = (lambda: list(tmp_path.glob(".rows.csv*"))) if "count" not in sql else (lambda: list(scratch.glob("rho-*")))
    while not begun() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert b"Traceback" not in told
    assert list(scratch.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]
