"""Artifacts of a workspace: sealed when written, verified when read, each kind by one reader."""

import ast
import contextlib
import json
import os
import random
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.tiny import CLASSES, write_corpus_card, write_il, write_workspace

from rhostream.errors import ConfigError, IrreducibleLossError, WorkspaceError
from rhostream.loaders.index.corpus_metadata import CorpusMetadata, read_shard_rows
from rhostream.loaders.reference.il_table import open_il_table
from rhostream.loaders.reference.key_table import KeyTable
from rhostream.loaders.storage.json_files import SEAL, decode_lines, encode_lines
from rhostream.loaders.storage.launcher import launched
from rhostream.loaders.storage.local_files import read_file
from rhostream.loaders.storage.parquet_files import decode_table, encode_table
from rhostream.loaders.storage.unreadable import UnreadableError
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.jobs.run_files import read_run_facts, read_run_metrics, write_run_facts
from rhostream.pipeline.sql.database import query
from rhostream.schema import CORE_SETS, LEDGER

ROOT = Path(__file__).parents[3]
LINE = {"run": "a", "step": 5, "epoch": 0, "train_loss": 0.5}

#: The one module that reads artifacts of each kind, and the calls that are its alone.
READERS = {
    "loaders/storage/parquet_files.py": ("read_table", "ParquetFile", "read_schema", "read_metadata", "ParquetDataset"),
    "loaders/storage/tensor_files.py": ("load_file", "safe_open", "load"),
    "loaders/storage/json_files.py": ("loads", "load"),
    "loaders/storage/text_tables.py": ("read_csv", "open_csv", "read_json"),
}
MODULES = {"pq", "parquet", "safetensors", "torch", "json", "csv"}
#: JSON that is no file's: of a Parquet's metadata, a cell, a tar's member, an environment variable, DuckDB's answer,
#: a tokenizer that its package has accepted.
TEXTS = {
    "loaders/decode/tokenizers.py",
    "pipeline/corpora/hugging_face/features.py",
    "pipeline/shards/listed_rows.py",
    "pipeline/corpora/labels.py",
    "pipeline/corpora/tars/samples.py",
    "pipeline/corpora/torchvision.py",
    "pipeline/config/definition.py",
    "pipeline/in_place/scanner.py",
    "pipeline/in_place/tars.py",
    "pipeline/shards/own_files.py",
    "pipeline/shards/unit.py",
    "pipeline/sql/read_only.py",
    "pipeline/thumbnails/maker.py",
    "pipeline/training/plan.py",
    "selection/ledger/history.py",
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """With an index, an IL table and a run."""
    made = write_workspace(tmp_path / "w", (20, 20))
    write_il(made)
    made.write_lines("runs/a/metrics.jsonl", [LINE, LINE | {"step": 10}])
    write_run_facts(made, "a", {"format_version": 2, "config": {"select": "uniform"}, "il": None})
    return made


def calls(path: Path) -> set[str]:
    """What a module calls of the modules that read files, as "json.loads"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = node.func.value
            name = of.id if isinstance(of, ast.Name) else of.attr if isinstance(of, ast.Attribute) else ""
            if name in MODULES:
                found.add(f"{name}.{node.func.attr}")
    return found


def test_each_kind_of_artifact_has_one_reader() -> None:
    forbidden = {name for names in READERS.values() for name in names}
    for folder in ("rhostream", "loaders", "selection", "pipeline", "cli"):
        for path in (ROOT / folder).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            reads = {call for call in calls(path) if call.rpartition(".")[2] in forbidden}
            if name in TEXTS:
                reads.discard("json.loads")
            assert not reads or name in READERS, f"{name} reads by itself: {reads}"


def joined(workspace: Workspace) -> Any:
    corpus = CorpusMetadata.read(workspace)
    table = open_il_table(workspace, corpus, "strided_cnn")
    rows = [read_shard_rows(workspace, shard) for shard in corpus.shards]
    return [(part.keys.to_pylist(), part.labels.tolist(), table.join(part).il.tolist()) for part in rows]


def asked(workspace: Workspace) -> Any:
    return query(workspace, "FROM samples ORDER BY ALL").to_pylist()


def run_files(workspace: Workspace) -> Any:
    return read_run_metrics(workspace, "a"), read_run_facts(workspace, "a")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "answer"),
    [
        ("corpus.json", joined),
        ("il/strided_cnn/model.json", joined),
        ("index/train-000001.parquet", joined),
        ("il/strided_cnn/scores/train-000000.parquet", joined),
        ("index/train-000000.parquet", asked),
        ("runs/a/metrics.jsonl", run_files),
        ("runs/a/run.json", run_files),
    ],
)
def test_a_flipped_bit_is_noticed_or_changes_no_answer(
    workspace: Workspace, file: str, answer: Callable[[Workspace], Any]
) -> None:
    content, expected, chance = workspace.read_bytes(file), answer(workspace), random.Random(file)
    told: list[str] = []
    for _ in range(25):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        workspace.write_bytes(file, bytes(damaged))
        try:
            found = answer(workspace)
        except (WorkspaceError, IrreducibleLossError, ConfigError) as error:
            told.append(str(error))
        else:
            assert found == expected
    assert len(told) > 20
    assert not [line for line in told if "\n" in line]


@pytest.mark.slow
def test_a_bit_in_any_byte_of_a_table_is_sealed(tmp_path: Path) -> None:
    workspace, table = Workspace(tmp_path), pa.table({"key": ["a", "b"], "il": [1.0, 2.0]})
    workspace.write_table("t.parquet", table)
    content = workspace.read_bytes("t.parquet")
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        (tmp_path / "t.parquet").write_bytes(damaged)
        with pytest.raises(WorkspaceError):
            workspace.read_table("t.parquet")


def test_a_cut_into_the_seal_leaves_no_unsealed_file() -> None:
    table = pa.table({"detail": ["No such file or directory"], "il": [0.25]})
    content = encode_table(table, name="a.parquet")
    seal = content.index(b"RHOSEAL1")
    unnoticed = []
    for before, after in product(range(50), range(60)):
        with contextlib.suppress(UnreadableError):
            assert decode_table(content[: seal - before] + content[seal + after :]).equals(table)
            unnoticed.append((before, after))
    assert unnoticed == [(0, 0), (0, 40)]  # nothing was taken, or the seal alone


def test_a_cut_into_a_lines_seal_leaves_no_unsealed_line() -> None:
    content = encode_lines([{"run": "a", "step": 1, "seconds_load": 0.5}])
    for start, length in product(range(len(content)), range(1, 64)):
        with contextlib.suppress(UnreadableError):
            decode_lines(content[:start] + content[start + length :])
            assert start + length >= len(content) - 1, (start, length)  # the line's end alone


def test_a_table_of_ours_written_by_another_tool_is_read(tmp_path: Path) -> None:
    workspace, table = Workspace(tmp_path), pa.table({"key": ["a", "b"] * 100, "il": [1.0, 2.0] * 100})
    workspace.write_table("t.parquet", table)
    for options in ({}, {"write_page_index": True}, {"row_group_size": 7}):
        pq.write_table(pq.read_table(tmp_path / "t.parquet"), tmp_path / "t.parquet", **options)
        assert workspace.read_table("t.parquet").equals(table)


def test_other_tools_read_sealed_tables_and_their_checksums(workspace: Workspace) -> None:
    path = workspace.path("index/train-000000.parquet")
    assert pq.read_table(path, page_checksum_verification=True).num_rows == 20
    assert duckdb.sql(f"SELECT count(*) FROM '{path}'").fetchall() == [(20,)]


def test_a_cards_seal_is_no_part_of_what_it_holds(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.write_json("card.json", {"a": [1, "ü"], "b": {}})
    assert workspace.read_json("card.json") == {"a": [1, "ü"], "b": {}}
    card = json.loads((tmp_path / "card.json").read_text())
    assert list(card) == ["a", "b", SEAL]
    del card[SEAL]
    (tmp_path / "card.json").write_text(json.dumps(card | {"a": 2}))  # edited by hand, its seal left out
    assert workspace.read_json("card.json")["a"] == 2
    (tmp_path / "card.json").write_text(json.dumps(card | {SEAL: "0" * 64}))
    with pytest.raises(WorkspaceError, match=r"its seal is broken.*remove its entry \"sha256\" if you have edited it"):
        workspace.read_json("card.json")


def test_a_shard_taken_out_of_the_card_is_noticed(workspace: Workspace) -> None:
    corpus = workspace.read_json("corpus.json")
    workspace.write_json("corpus.json", corpus | {"shards": corpus["shards"][1:]})
    with pytest.raises(WorkspaceError, match="lists 1 shards that are not those of its fingerprint"):
        CorpusMetadata.read(workspace)
    write_corpus_card(workspace, corpus | {"shards": corpus["shards"][1:]})
    with pytest.raises(WorkspaceError, match="counts 40 samples, and lists shards of 20"):
        CorpusMetadata.read(workspace)


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ([], "has content .*which is an object"),
        ({"classes": "abc"}, "has classes 'abc', which is a list"),
        ({"shards": [{"name": "a"}]}, r"has no shards\[0\].split"),
        ({"counts": {"entries": 1, "samples": "1", "rejects": 0}}, "counts no samples"),
        ({"manifest": {"train": 3}}, r"has a manifest whose \[train\] is no table"),
        ({"fingerprint": None}, "has fingerprint None, which is of type str"),
    ],
)
def test_a_card_of_another_shape_is_one_line(workspace: Workspace, card: Any, expected: str) -> None:
    whole = workspace.read_json("corpus.json")
    workspace.write_json("corpus.json", whole | card if isinstance(card, dict) else card)
    with pytest.raises(WorkspaceError, match=rf"corpus\.json {expected}"):
        CorpusMetadata.read(workspace)


@pytest.mark.parametrize("key", ["../../x", "/x", "a/b", "a.b", ""])
def test_keys_that_lead_out_of_a_folder_are_refused(workspace: Workspace, key: str) -> None:
    shard = CorpusMetadata.read(workspace).shards[0]
    table = workspace.read_table(shard.index)
    keys = pa.array([key, *table["key"].to_pylist()[1:]])
    changed = table.set_column(0, table.schema.field("key"), keys)
    workspace.write_table(shard.index, changed.replace_schema_metadata(table.schema.metadata))
    with pytest.raises(WorkspaceError, match="which no sample of ours has"):
        read_shard_rows(workspace, shard)


def test_a_part_in_another_runs_folder_is_refused(workspace: Workspace) -> None:
    source = Path(workspace.path("il/strided_cnn"))
    source.rename(source.with_name("other"))
    with pytest.raises(WorkspaceError, match=r"is of 'strided_cnn': give its folder that name again"):
        query(workspace, "FROM il")
    Path(workspace.path("runs/a")).rename(workspace.path("runs/b"))
    with pytest.raises(WorkspaceError, match=r"run\.json is of the run 'a'"):
        read_run_facts(workspace, "b")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda table: table.drop_columns(["kept"]), r"has no column kept \(it has core_set, key"),
        (lambda table: table.set_column(5, "kept", pa.array(["yes"] * 20)), "has column kept of type string, which is"),
        (lambda table: table.set_column(1, "key", pa.array([None] * 20, pa.string())), "has 20 nulls in column key"),
    ],
)
def test_columns_that_are_not_as_promised_are_named(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], expected: str
) -> None:
    workspace = Workspace(tmp_path)
    row = {"core_set": "a", "key": "k", "shard": "s", "row": 0, "entropy": 0.5, "kept": True}
    workspace.write_table("t.parquet", change(pa.Table.from_pylist([row] * 20, CORE_SETS)))
    with pytest.raises(WorkspaceError, match=expected):
        workspace.read_table("t.parquet", ["key", "kept"], CORE_SETS)


def test_only_a_former_releases_ledger_may_lack_columns(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    row = {"run": "a", "epoch": 0, "step": 1, "rank": 0, "key": "k", "shard": "s", "row": 0, "label": 0}
    table = pa.Table.from_pylist([row | {"selected": True, "selection": "uniform"}], LEDGER).drop_columns(["trained"])
    name = "runs/a/ledger/000000001-rank0.parquet"
    place.write_table(name, table)
    with pytest.raises(WorkspaceError, match="has no column trained"):
        query(place, "FROM ledger")
    pq.write_table(table, place.path(name))
    assert query(place, "FROM ledger")["key"].to_pylist() == ["k"]


def in_place_of(path: Path, what: str) -> None:
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    else:
        path.symlink_to(path)


@pytest.mark.parametrize("what", ["folder", "pipe", "device", "loop"])
def test_what_is_no_file_is_named_and_never_waited_for(workspace: Workspace, what: str) -> None:
    in_place_of(Path(workspace.path("index/train-000000.parquet")), what)
    with pytest.raises(WorkspaceError, match=r"train-000000\.parquet (is|cannot be|is missing)"):
        read_shard_rows(workspace, CorpusMetadata.read(workspace).shards[0])
    in_place_of(Path(workspace.path("corpus.json")), what)
    with pytest.raises(WorkspaceError, match=r"corpus\.json"):
        CorpusMetadata.read(workspace)


def test_names_longer_than_any_file_are_one_line(workspace: Workspace) -> None:
    with pytest.raises(UnreadableError, match="File name too long"):
        read_file("a" * 3000)
    with pytest.raises(IrreducibleLossError, match="has no il/aaa"):
        open_il_table(workspace, CorpusMetadata.read(workspace), "a" * 3000)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"key": [["a"]], "il": [1.0]}, "has column key of type list"),
        ({"key": ["a", None], "il": [1.0, 2.0]}, "has 1 nulls in column key"),
        ({"key": [1], "il": [1.0]}, "has column key of type int64"),
        ({"key": ["a"], "il": ["high"]}, "has column il of type string"),
        ({"key": ["a"], "il": [1.0], "in_sample": [1]}, "has column in_sample of type int64"),
        ({"key": ["a"], "loss": [1.0]}, r"has no column \['il'\].*rename them to key and il"),
    ],
)
def test_a_foreign_il_table_tells_its_wrong_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: dict[str, Any], expected: str
) -> None:
    monkeypatch.setenv("RHO_CACHE", str(tmp_path / "cache"))
    pq.write_table(pa.table(columns), tmp_path / "il.parquet")
    with pytest.raises(IrreducibleLossError, match=expected):
        KeyTable.of_parquet(str(tmp_path / "il.parquet"))


def test_a_foreign_il_table_that_is_none_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RHO_CACHE", str(tmp_path / "cache"))
    pq.write_table(pa.table({"key": ["a"], "il": [1.0]}), tmp_path / "il.parquet", write_page_checksum=True)
    content = (tmp_path / "il.parquet").read_bytes()
    (tmp_path / "short.parquet").write_bytes(content[:-20])
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.parquet")
    for name, cause in (("short", "damaged"), ("pipe", "is a pipe"), ("empty", "the folder is empty")):
        path = tmp_path / (name if name == "empty" else f"{name}.parquet")
        with pytest.raises(IrreducibleLossError, match=cause):
            KeyTable.of_parquet(f"{path}")


def test_a_damaged_key_table_of_the_cache_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RHO_CACHE", str(tmp_path / "cache"))
    pq.write_table(pa.table({"key": ["a", "b"], "il": [1.0, 2.0]}), tmp_path / "il.parquet")
    KeyTable.of_parquet(str(tmp_path / "il.parquet"))
    (cached,) = (tmp_path / "cache/keytables").iterdir()
    for content in (b"", b"garbage", cached.read_bytes()[:-5]):
        cached.write_bytes(content)
        found = KeyTable.of_parquet(str(tmp_path / "il.parquet")).lookup(["b", "c"])[0]
        assert np.array_equal(found, [2.0, np.nan], equal_nan=True)


def test_a_cache_folder_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RHO_CACHE", str(tmp_path / "file"))
    pq.write_table(pa.table({"key": ["a"], "il": [1.0]}), tmp_path / "il.parquet")
    with pytest.raises(ConfigError, match=r"cannot hold the IL table's keys \(Not a directory\).*RHO_CACHE"):
        KeyTable.of_parquet(str(tmp_path / "il.parquet"))
    workspace = write_workspace(tmp_path / "w", (3,))
    assert query(workspace, "SELECT count(*) AS n FROM samples").to_pylist() == [{"n": 3}]


@pytest.mark.parametrize("value", ["x", "0", "-1", "1.5"])
def test_a_world_size_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", value)
    with pytest.raises(ConfigError, match=rf"WORLD_SIZE='{value}': torchrun sets it to a number from 1 on"):
        launched("WORLD_SIZE", 1)


def test_queries_verify_files_once_until_they_change(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RHO_CACHE", str(tmp_path / "cache"))
    sql = "SELECT DISTINCT class FROM samples ORDER BY class"
    assert [row["class"] for row in query(workspace, sql).to_pylist()] == list(CLASSES)
    monkeypatch.setattr(Workspace, "check_table", lambda *_: pytest.fail("read again"))
    query(workspace, sql)
    monkeypatch.undo()
    monkeypatch.setenv("RHO_CACHE", str(tmp_path / "cache"))
    path = Path(workspace.path("index/train-000001.parquet"))
    path.write_bytes(path.read_bytes().replace(b"coat", b"cost"))
    with pytest.raises(WorkspaceError, match=r"train-000001\.parquet was damaged or changed after it was written"):
        query(workspace, sql)
