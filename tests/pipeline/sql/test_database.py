"""`rho query` and `rho views`: the tables, the formats, the errors."""

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

from rhostream import ConfigError, WorkspaceError
from rhostream.cli.query import query as query_command, views as views_command
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.sql.database import query, reading
from rhostream.pipeline.sql.views import VIEWS, create_views
from rhostream.schema import METRICS_SO_FAR

Ask = Callable[..., bytes]

HARD_NAMES = ["plain", 'o\'brien "x" ü', "glob [a-z]*? {b,c}", "seed=1/fold=2", "100%/~/a,b;--"]


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


def count(workspace: Workspace, table: str) -> int:
    number: int = query(workspace, f"SELECT count(*) AS n FROM {table}").column("n")[0].as_py()
    return number


@pytest.mark.slow
@pytest.mark.parametrize("name", HARD_NAMES)
def test_every_table_is_read_whatever_the_workspaces_path(tmp_path: Path, name: str) -> None:
    workspace = tables.fill(str(tmp_path / name))
    assert {view: count(workspace, view) for view in VIEWS} == {
        "samples": 14,
        "rejects": 1,
        "il": 28,
        "core_sets": 0,
        "clusters": 0,
        "ledger": 3 * 12 + 3 * 11,
        "history": 12 + 11,
        "metrics": 4,
    }
    for view, (columns, _) in VIEWS.items():
        found = query(workspace, f"FROM {view}").schema
        extra = {"samples": ["clean_label"], "metrics": METRICS_SO_FAR.names}.get(view, [])
        assert found.names == [*columns.names, *extra]
        assert [found.field(field.name).type for field in columns] == [field.type for field in columns]


@pytest.mark.slow
def test_a_remote_workspace_is_read_through_its_own_file_system(tmp_path: Path) -> None:
    for name in HARD_NAMES:
        workspace = tables.fill(f"memory://test_query/{name}")
        assert count(workspace, "ledger") == 69, name
        assert count(workspace, "metrics") == 4, name


def test_a_workspace_behind_a_symlink_or_relative_path_is_read(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(workspace.root, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    assert count(Workspace("link"), "samples") == 14
    (tmp_path / "folder").mkdir()
    assert count(Workspace(tmp_path / "folder" / ".." / "link"), "samples") == 14


@pytest.mark.slow
def test_tables_without_files_are_empty_with_their_types(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.write_json("corpus.json", {})
    for view, (columns, _) in VIEWS.items():
        found = query(workspace, f"FROM {view}")
        assert found.num_rows == 0
        expected = [*columns, *(METRICS_SO_FAR if view == "metrics" else [])]
        assert list(zip(found.schema.names, found.schema.types, strict=True)) == [(f.name, f.type) for f in expected]


def test_a_half_written_line_of_metrics_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    lines = b'{"run": "a", "step": 1, "test_loss": NaN, "unknown": [1]}\n{"run": "a", "step": 2}\n'
    workspace.write_bytes("runs/a/metrics.jsonl", lines)
    rows = query(workspace, "SELECT run, step, isnan(test_loss) AS nan FROM metrics ORDER BY step").to_pylist()
    assert rows == [{"run": "a", "step": 1, "nan": True}, {"run": "a", "step": 2, "nan": None}]
    workspace.write_bytes("runs/a/metrics.jsonl", lines + b'{"run": "a", "st')
    with pytest.raises(WorkspaceError, match=r"metrics\.jsonl has a line 3 that is not valid JSON"):
        query(workspace, "FROM metrics")


def test_metrics_tell_all_costs_except_those_of_evaluation(tmp_path: Path) -> None:
    costs = {"load": 1.0, "score": 2.0, "auto": 4.0, "train": 8.0, "evaluate": 16.0, "il_train": 32.0, "il_score": 64.0}
    factors = {"seconds": 1, "cpu_seconds": 2, "flops": 1000}
    line = {f"{unit}_{cost}": factor * value for unit, factor in factors.items() for cost, value in costs.items()}
    unknown = {name: value for name, value in line.items() if name != "seconds_score"}
    workspace = Workspace(tmp_path)
    lines = [{"run": "a", "step": 1, **line}, {"run": "a", "step": 2, **unknown}]
    workspace.write_bytes("runs/a/metrics.jsonl", "".join(json.dumps(each) + "\n" for each in lines).encode())
    rows = query(workspace, "SELECT seconds_so_far, cpu_seconds_so_far, flops_so_far FROM metrics ORDER BY step")
    assert rows.to_pylist() == [
        {"seconds_so_far": 111.0, "cpu_seconds_so_far": 222.0, "flops_so_far": 111000.0},
        {"seconds_so_far": None, "cpu_seconds_so_far": 222.0, "flops_so_far": 111000.0},
    ]


def test_unfinished_files_are_not_part_of_a_table(tmp_path: Path) -> None:
    workspace = tables.fill(str(tmp_path))
    (tmp_path / "index" / "train-000009.parquet.tmp").write_bytes(b"half a file")
    assert count(workspace, "samples") == 14


def test_the_printed_views_work_in_a_duckdb_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.fill(str(tmp_path / HARD_NAMES[2]))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(views_command, ["--workspace", HARD_NAMES[2]])
    assert result.exit_code == 0, result.output
    monkeypatch.chdir("/")
    with duckdb.connect() as connection:
        connection.execute(result.stdout)
        connection.execute(result.stdout)
        for view, rows in (("samples", 14), ("il", 28), ("metrics", 4)):
            assert connection.execute(f"SELECT count(*) FROM {view}").fetchone() == (rows,)


def test_a_view_sees_files_that_come_later(tmp_path: Path) -> None:
    workspace = tables.fill(str(tmp_path))
    with duckdb.connect() as connection:
        connection.execute("\n".join(create_views(workspace)))
        one = workspace.read_table("runs/uniform/ledger/000000001-rank0.parquet")
        workspace.write_table("runs/later/ledger/000000001-rank0.parquet", one)
        assert connection.execute("SELECT count(*) FROM ledger").fetchone() == (69 + 12,)


def test_no_workspace_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"does not exist.*write the shards"):
        query(tmp_path / "nothing", "SELECT 1")
    with pytest.raises(WorkspaceError, match=r"holds no workspace.*write the shards"):
        query(tmp_path, "SELECT 1")
    with pytest.raises(WorkspaceError, match="does not exist"):
        query("memory://test_query_nothing", "SELECT 1")


@pytest.mark.parametrize(
    ("sql", "hint"),
    [
        ("SELEC 1", 'near "SELEC"'),
        ("SELECT clas FROM samples", '"class"'),
        ("FROM sampels", "samples"),
        ("SELECT 'a'::INT", "'a'"),
        ("SELECT no_such_function(1)", "no_such_function"),
    ],
)
def test_wrong_sql_is_one_line_with_duckdbs_hint(workspace: Workspace, sql: str, hint: str) -> None:
    with pytest.raises(ConfigError) as error:
        query(workspace, sql)
    assert hint in str(error.value)
    assert "\n" not in str(error.value)


def test_a_broken_file_is_named_in_a_workspace_error(tmp_path: Path) -> None:
    workspace = tables.fill(str(tmp_path))
    (tmp_path / "rejects" / "000000.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(WorkspaceError, match=r"rejects/000000\.parquet"):
        query(workspace, "FROM rejects")


def test_a_list_of_views_verifies_none_for_later_questions(tmp_path: Path) -> None:
    workspace = tables.fill(str(tmp_path / "w"))
    (file, *_) = (Path(workspace.location) / "index").iterdir()
    content = bytearray(file.read_bytes())
    content[content.index(b"RHOSEAL1") + 8] ^= 1  # of its digest, which DuckDB does not read
    file.write_bytes(content)
    with reading(workspace) as reader:
        assert reader.ask("SHOW TABLES").num_rows == len(VIEWS)
        with pytest.raises(WorkspaceError, match=file.name):
            reader.ask("SELECT count(*) FROM samples")


def test_rows_of_many_small_files_are_read_from_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RHO_CACHE", str(tmp_path / "a [cache]"))
    workspace = tables.fill(str(tmp_path / "w"))
    first = workspace.read_table("index/train-000000.parquet")
    asked = "SELECT count(*), count(clean_label), min(key), max(row) FROM samples"
    expected = query(workspace, asked)
    for number in range(70):
        workspace.write_table(f"index/more-{number:06d}.parquet", first.slice(0, 0))
    for _ in range(2):
        assert query(workspace, asked).equals(expected)
    (kept,) = (tmp_path / "a [cache]" / "queries").glob("*/samples.parquet")

    # No file of the index is opened: one whose time and size are as before may hold anything.
    damaged = Path(workspace.path("index/more-000003.parquet"))
    content, status = damaged.read_bytes(), damaged.stat()
    damaged.write_bytes(bytes(len(content)))
    os.utime(damaged, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert query(workspace, asked).equals(expected)

    # A damaged copy is made again, which opens them.
    kept.write_bytes(kept.read_bytes()[:-30] + bytes(30))
    with pytest.raises(WorkspaceError, match=r"more-000003\.parquet"):
        query(workspace, asked)
    damaged.write_bytes(content)
    assert query(workspace, asked).equals(expected)

    workspace.write_table("index/more-000070.parquet", first)
    assert count(workspace, "samples") == 14 + first.num_rows
    workspace.remove("index/more-000070.parquet")
    assert count(workspace, "samples") == 14


def test_columns_of_the_same_name_are_all_kept(workspace: Workspace) -> None:
    rows = query(workspace, "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a").to_pylist()
    assert rows == [{"a": 1, "a_2": 2, "a_1": 3, "a_3": 4}]


def test_queries_leave_nothing_in_the_working_directory(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    query(workspace, "SELECT count(*) FROM range(100000) GROUP BY range % 1000")
    assert list(tmp_path.iterdir()) == []


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
