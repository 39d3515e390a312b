"""The tables of a workspace in DuckDB: what they hold, what they read, and the errors."""

import json
import os
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner
from helpers import tables

from rhostream import ConfigError, WorkspaceError
from rhostream.cli.query import views as views_command
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.sql.database import query, reading
from rhostream.pipeline.sql.views import VIEWS, create_views
from rhostream.schema import METRICS_SO_FAR

HARD_NAMES = ["plain", 'o\'brien "x" ü', "glob [a-z]*? {b,c}", "seed=1/fold=2", "100%/~/a,b;--"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return tables.fill(str(tmp_path_factory.mktemp("workspace")))


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
