"""A query reads inside the workspace alone and writes nothing: every way out that DuckDB has is tried."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import tables

from rhostream import RhostreamError
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.sql.database import query

SECRET = "the secret"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace in it, secrets beside it, and links from inside to outside."""
    house = tmp_path_factory.mktemp("house")
    tables.fill(str(house / "workspace"))
    for folder in (house, house / "workspace-2"):
        folder.mkdir(exist_ok=True)
        (folder / "secret.txt").write_text(SECRET)
        (folder / "secret.json").write_text(f'{{"text": "{SECRET}"}}')
        pq.write_table(pa.table({"text": [SECRET]}), folder / "secret.parquet")
    inside = house / "workspace" / "links"
    inside.mkdir()
    (inside / "file.txt").symlink_to(house / "secret.txt")
    (inside / "file.parquet").symlink_to(house / "secret.parquet")
    (inside / "folder").symlink_to(house, target_is_directory=True)
    (house / "workspace" / "inside.txt").write_text("inside")
    return house


@pytest.fixture
def server() -> Iterator[int]:
    """A port where somebody listens; nobody may come."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]
        listening.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listening.accept()


def tree(house: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in sorted(house.rglob("*"))}


READS = [
    *(
        f"FROM {function}('{{place}}/secret.{kind}')"
        for kind, functions in {
            "txt": ("read_csv", "read_csv_auto", "read_text", "read_blob", "sniff_csv", "glob"),
            "json": ("read_json", "read_json_auto", "read_json_objects", "read_ndjson", "read_ndjson_objects"),
            "parquet": (
                "read_parquet",
                "parquet_scan",
                "parquet_metadata",
                "parquet_schema",
                "parquet_file_metadata",
                "parquet_kv_metadata",
                "parquet_full_metadata",
            ),
        }.items()
        for function in functions
    ),
    "FROM '{place}/secret.parquet'",
    "FROM '{place}/secret.txt'",
    "FROM '{place}/secret.json'",
    "FROM '{place}/*.parquet'",
    "FROM glob('{place}/*')",
    "FROM glob('{place}/**')",
    "FROM read_text(['{place}/secret.txt'])",
    "FROM samples, read_text('{place}/secret.txt')",
    "SELECT (SELECT content FROM read_text('{place}/secret.txt'))",
    "EXPLAIN ANALYZE FROM read_text('{place}/secret.txt')",
    "DESCRIBE FROM '{place}/secret.parquet'",
    "SUMMARIZE FROM '{place}/secret.parquet'",
    "PIVOT (FROM '{place}/secret.parquet') ON text IN ('x') USING count(*)",
]


@pytest.mark.parametrize("place", ["{house}", pytest.param("{house}/workspace/links/folder", marks=pytest.mark.slow)])
@pytest.mark.parametrize("sql", [READS[0], *(pytest.param(sql, marks=pytest.mark.slow) for sql in READS[1:])])
def test_no_function_reads_a_file_outside(house: Path, sql: str, place: str) -> None:
    with pytest.raises(RhostreamError) as error:
        query(house / "workspace", sql.format(place=place.format(house=house)))
    assert SECRET not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        "{house}/workspace/..",
        "{house}/workspace/index/../..",
        "{house}/workspace-2",
        "{house}/workspace//..",
        "{house}/workspace/./links/folder/workspace-2",
        "file://{house}",
        "..",
        "./../workspace-2",
    ],
)
def test_no_spelling_of_a_path_leads_outside(house: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(house / "workspace")
    for sql in ("FROM read_text('{place}/secret.txt')", "FROM '{place}/secret.parquet'", "FROM glob('{place}/*')"):
        with pytest.raises(RhostreamError) as error:
            query(house / "workspace", sql.format(place=place.format(house=house)))
        assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_text('{house}/workspace/links/file.txt')",
        "FROM '{house}/workspace/links/file.parquet'",
        "FROM '{house}/workspace/links/*.parquet'",
        "FROM glob('{house}/workspace/links/folder/*')",
        "FROM read_text('{house}/workspace/*/*.txt')",
    ],
)
def test_a_link_from_inside_to_outside_is_not_followed(house: Path, sql: str) -> None:
    with pytest.raises(RhostreamError):
        query(house / "workspace", sql.format(house=house))


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/proc/self/environ", "/proc/self/cmdline", "/dev/stdin", "~/.bashrc", "etc/../../passwd"]
)
def test_no_file_of_the_system_is_read(house: Path, path: str) -> None:
    for sql in (f"FROM read_text('{path}')", f"FROM read_csv('{path}')", f"FROM read_blob('{path}')"):
        with pytest.raises(RhostreamError):
            query(house / "workspace", sql)


def test_files_inside_are_read(house: Path) -> None:
    """What the refusals above are worth: the same functions work where they may."""
    inside = house / "workspace"
    assert query(inside, f"SELECT content FROM read_text('{inside}/inside.txt')").to_pylist() == [{"content": "inside"}]
    assert query(inside, f"FROM '{inside}/index/train-000000.parquet'").num_rows == 6
    assert query(inside, f"FROM parquet_schema('{inside}/index/train-000000.parquet')").num_rows > 10
    assert query(inside, f"FROM glob('{inside}/index/*')").num_rows == 3


@pytest.mark.slow
def test_nothing_is_fetched_from_the_network(house: Path, server: int) -> None:
    for sql in (
        "FROM read_text('http://127.0.0.1:{port}/x')",
        "FROM 'http://127.0.0.1:{port}/x.parquet'",
        "FROM read_csv('https://127.0.0.1:{port}/x.csv')",
        "FROM read_parquet('s3://127.0.0.1:{port}/x.parquet')",
        "FROM read_parquet('hf://datasets/x/y.parquet')",
        "INSTALL httpfs",
        "LOAD httpfs",
        "INSTALL spatial FROM 'http://127.0.0.1:{port}'",
        "ATTACH 'http://127.0.0.1:{port}/x.db'",
    ):
        with pytest.raises(RhostreamError):
            query(house / "workspace", sql.format(port=server))


@pytest.mark.slow
@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{file}'",
        "COPY samples TO '{file}' (FORMAT parquet)",
        "WITH t AS (COPY (SELECT 1) TO '{file}') FROM t",
        "WITH a AS (SELECT 1), t AS MATERIALIZED (COPY a TO '{file}') FROM a, t",
        "SELECT (WITH t AS (COPY (SELECT 1) TO '{file}') FROM t)",
        "FROM (WITH t AS (COPY (SELECT 1) TO '{file}') FROM t)",
        "(WITH t AS (COPY (SELECT 1) TO '{file}') FROM t) UNION ALL SELECT 1",
        "DESCRIBE (WITH t AS (COPY (SELECT 1) TO '{file}') FROM t)",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}'",
        "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{file}'",
        "EXPLAIN (ANALYZE, FORMAT json) COPY (SELECT 1) TO '{file}'",
        "EXPLAIN /* ( */ ANALYZE /* ) */ COPY (SELECT 1) TO '{file}'",
        "EXPLAIN ANALYZE WITH t AS (COPY (SELECT 1) TO '{file}') FROM t",
        "FROM query('WITH t AS (COPY (SELECT 1) TO ''{file}'') FROM t')",
        "FROM json_execute_serialized_sql(json_serialize_sql('WITH t AS (COPY (SELECT 1) TO ''{file}'') FROM t'))",
        "PIVOT (WITH t AS (COPY (SELECT 1) TO '{file}') FROM t) ON 1 USING count(*)",
        "SELECT 1; COPY (SELECT 1) TO '{file}'",
        "EXPORT DATABASE '{file}'",
        "ATTACH '{file}' AS other",
        "PREPARE p AS COPY (SELECT 1) TO '{file}'",
        "FROM enable_profiling(save_location = '{file}')",
        "FROM enable_logging(storage = 'file', storage_path = '{file}')",
        "PRAGMA profiling_output = '{file}'",
        "SET temp_directory = '{file}'",
    ],
)
def test_nothing_is_written_inside_or_outside(house: Path, sql: str) -> None:
    before = tree(house)
    for file in (house / "written", house / "workspace" / "written", house / "workspace" / "index" / "x.parquet"):
        with pytest.raises(RhostreamError):
            query(house / "workspace", sql.format(file=file))
    assert tree(house) == before


@pytest.mark.parametrize(
    "sql",
    [
        "SET enable_external_access = true",
        "SET GLOBAL allowed_directories = ['/']",
        "RESET allowed_directories",
        "SET VARIABLE a = 1",
        "PRAGMA database_list",
        "CALL pragma_version()",
        "FROM enable_logging()",
        "FROM query('SELECT 1')",
        "FROM system.main.query('SELECT 1')",
        "FROM read_duckdb('x.db')",
        "FROM which_secret('s3://x', 's3')",
        "FROM duckdb_secrets()",
        "CREATE TABLE t AS SELECT 1",
        "CREATE OR REPLACE VIEW samples AS SELECT 1",
        "CREATE SECRET (TYPE s3)",
        "CREATE MACRO f() AS 1",
        "INSERT INTO samples VALUES (1)",
        "WITH t AS (INSERT INTO samples VALUES (1) RETURNING *) FROM t",
        "WITH t AS (DELETE FROM samples RETURNING *) FROM t",
        "UPDATE samples SET label = 0",
        "UPDATE EXTENSIONS",
        "DELETE FROM samples",
        "DROP VIEW samples",
        "USE memory",
        "BEGIN",
        "VACUUM",
        "CHECKPOINT",
        "",
        ";",
        "-- nothing",
        "SELECT 1; SELECT 2",
    ],
)
def test_only_one_reading_statement_is_accepted(house: Path, sql: str) -> None:
    with pytest.raises(RhostreamError):
        query(house / "workspace", sql)


def test_neither_the_environment_nor_this_process_is_seen(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET", SECRET)
    secret = pa.table({"text": [SECRET]})
    for sql in ("SELECT getenv('SOME_SECRET')", "FROM secret", "SELECT * FROM python_map_function((SELECT 1))"):
        with pytest.raises(RhostreamError):
            query(house / "workspace", sql)
    assert secret.num_rows == 1


@pytest.fixture
def remote() -> Iterator[Workspace]:
    files = fsspec.filesystem("memory")
    files.pipe("/confined/secret.txt", SECRET.encode())
    files.pipe("/confined/workspace-2/secret.txt", SECRET.encode())
    yield tables.fill("memory://confined/workspace")
    files.rm("/confined", recursive=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "memory://confined/secret.txt",
        "memory:///confined/secret.txt",
        "memory://confined/workspace/../secret.txt",
        "workspace://../secret.txt",
        "workspace:///../secret.txt",
        "workspace://index/../../secret.txt",
        "workspace://../workspace-2/secret.txt",
        "/confined/secret.txt",
        "/etc/passwd",
    ],
)
def test_a_remote_workspace_confines_as_well(remote: Workspace, path: str) -> None:
    for sql in (f"SELECT content FROM read_text('{path}')", f"FROM read_csv('{path}')", f"FROM glob('{path}*')"):
        with contextlib.suppress(RhostreamError):
            assert query(remote, sql).num_rows == 0


@pytest.mark.slow
def test_a_remote_workspace_is_not_written(remote: Workspace) -> None:
    files = fsspec.filesystem("memory")
    before = sorted(files.find("/confined"))
    for path in ("workspace://x.csv", "memory://confined/workspace/x.csv", "memory://confined/x.csv"):
        for sql in (f"COPY (SELECT 1) TO '{path}'", f"WITH t AS (COPY (SELECT 1) TO '{path}') FROM t"):
            with pytest.raises(RhostreamError):
                query(remote, sql)
    assert sorted(files.find("/confined")) == before
    assert query(remote, "SELECT size FROM read_text('workspace://corpus.json')").num_rows == 1
