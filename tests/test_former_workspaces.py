"""Workspaces that a former release wrote: read with the same figures as then, or a line tells what to make again."""

import csv
import json
import tarfile
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pyarrow.parquet as pq
import pytest

from rhostream.cli.main import rho
from rhostream.errors import RhostreamError, WorkspaceError
from rhostream.loaders.index import CorpusMetadata, Thumbnails
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import CandidateStream
from rhostream.loaders.stream.order import Order
from rhostream.pipeline.sql import query

FIXTURE = Path(__file__).parent / "fixtures" / "former_workspaces.tar.xz"
WRITTEN_AT = "/srv/former"  # where the former release found the tars that it indexed in place

#: Of the questions and of a clean list's reasons.
TODAY = {"mislabelled": "mislabeled"}


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `ws` (of `rho shards`), `indexed` (of `rho index`) and the answers that were given then."""
    folder = tmp_path_factory.mktemp("former")
    with tarfile.open(FIXTURE) as tar:
        tar.extractall(folder, filter="data")
    metadata = folder / "indexed" / "corpus.json"
    metadata.write_text(metadata.read_text().replace(WRITTEN_AT, str(folder)))
    return folder


@pytest.fixture(scope="module")
def then(former: Path) -> dict[str, Any]:
    answers: dict[str, Any] = json.loads((former / "answers.json").read_text())
    return answers


def under_todays_names(row: dict[str, Any]) -> dict[str, Any]:
    return {name: TODAY.get(value, value) if name == "reason" else value for name, value in row.items()}


def run(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(rho, [*arguments])


def answer(*arguments: str) -> list[dict[str, Any]]:
    """What a command prints as JSON."""
    result = run(*arguments, "--format", "json")
    assert result.exit_code == 0, (result.output, result.exception)
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


@pytest.mark.parametrize(("name", "il"), [("ws", "small_mlp"), ("indexed", None)])
def test_stream_of_a_former_workspace_opens_and_joins(former: Path, name: str, il: str | None) -> None:
    stream = CandidateStream(former / name, il=il, super_batch_size=24, seed=0, order=Order(last="keep"))
    batches = list(stream)
    keys = [key for batch in batches for key in batch.keys]
    assert len(set(keys)) == len(keys) == {"ws": 79, "indexed": 70}[name]
    if il:
        table = {row["key"]: row["il"] for row in pq.read_table(former / "ws/il/small_mlp/scores").to_pylist()}
        joined: dict[str, float] = {}
        for batch in batches:
            assert batch.il is not None
            joined |= zip(batch.keys, batch.il.tolist(), strict=True)
        assert joined == table


def test_manifest_and_spec_have_todays_names(former: Path) -> None:
    manifest = CorpusMetadata.read(Workspace(former / "ws")).manifest
    assert (manifest["thumbnails"], manifest["thumbnail_format"]) == (8, "jpeg")
    assert not [name for name in manifest if name.startswith("scoring_")]


def test_metrics_of_a_former_run_are_the_same(former: Path, then: dict[str, Any]) -> None:
    sql = (
        "SELECT run, step, validation AS held_back, candidates_mislabeled AS candidates_mislabelled, "
        "selected_mislabeled AS selected_mislabelled, test_accuracy FROM metrics ORDER BY run, step"
    )
    assert answer("query", "--workspace", str(former / "ws"), sql) == then["metrics"]


def test_ledger_of_a_former_run_is_the_same(former: Path, then: dict[str, Any]) -> None:
    sql = "SELECT run, count(*) AS n, sum(selected::int) AS selected, sum(loss) AS loss FROM ledger GROUP BY ALL"
    assert answer("query", "--workspace", str(former / "ws"), f"{sql} ORDER BY ALL") == then["ledger"]


def test_ledger_reason_of_a_former_run_is_called_as_today(former: Path, tmp_path: Path) -> None:
    table = pq.read_table(former / "ws/runs/rho_loss/ledger/000000001-rank0.parquet")
    at = table.column_names.index("reason")
    reasons = np.resize(["held_back", "unreadable"], len(table))
    part = tmp_path / "runs/rho_loss/ledger/1-rank0.parquet"
    part.parent.mkdir(parents=True)
    pq.write_table(table.set_column(at, table.schema.field(at), [reasons]), part)
    found = query(tmp_path, "SELECT DISTINCT reason FROM ledger ORDER BY reason").column("reason").to_pylist()
    assert found == ["unreadable", "validation"]


def test_labels_contradicted_now_were_contradicted_then(former: Path, then: dict[str, Any]) -> None:
    """Thresholds for each class have come in since, so that there are fewer."""
    rows = answer("explain", "mislabeled", "--workspace", str(former / "ws"), "--run", "rho_loss")
    before = {row["key"]: row for row in then["mislabelled"]}
    assert 0 < len(rows) < len(before)
    by_rank = ("rank", "precision_at_k", "recall_at_k")  # which those that are no longer there have changed
    for row in rows:
        was = under_todays_names(before[row["key"]])
        assert {name: value for name, value in row.items() if name not in by_rank} == {
            name: value for name, value in was.items() if name not in by_rank
        }
    assert [row["key"] for row in rows] == [key for key in before if key in {row["key"] for row in rows}]


def test_reasons_of_a_former_run_count_every_sample(former: Path, then: dict[str, Any]) -> None:
    rows = answer("explain", "reasons", "--workspace", str(former / "ws"), "--run", "rho_loss")
    selected, was = (next(row for row in found if row["reason"] == "selected") for found in (rows, then["reasons"]))
    assert (selected["samples"], selected["latest_loss"]) == (was["samples"], was["latest_loss"])
    assert sum(row["samples"] for row in rows) == sum(row["samples"] for row in then["reasons"]) == 79


def test_clean_list_drops_none_that_the_former_one_kept(former: Path, then: dict[str, Any], tmp_path: Path) -> None:
    output = tmp_path / "clean.csv"
    arguments = [
        "--workspace",
        str(former / "ws"),
        "--run",
        "rho_loss",
        "--output",
        str(output),
        "--max-drop-share",
        "1",
    ]
    result = run("export", "list", *arguments, "--max-drop-share", "1")
    assert result.exit_code == 0, result.output
    rows = {row["key"]: row for row in csv.DictReader(output.read_text().splitlines())}
    before = {row["key"]: under_todays_names(row) for row in csv.DictReader(then["clean_list"])}
    assert rows.keys() == before.keys()
    changed = {key for key in rows if rows[key] != before[key]}
    assert 0 < len(changed) < len(rows) / 2
    for key in changed:
        assert before[key]["action"] == "drop"
        assert rows[key]["action"] == "keep"
        assert (rows[key]["label"], rows[key]["class"]) == (before[key]["label"], before[key]["class"])


@pytest.mark.slow
def test_report_lists_former_runs(former: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    result = run("report", "--workspace", str(former / "ws"), "--run", "rho_loss", "--output", str(output))
    assert result.exit_code == 0, result.output
    assert "rho_loss" in output.read_text()


def test_il_model_and_its_scores_need_no_remaking(former: Path) -> None:
    for command in (["il", "train"], ["il", "score"]):
        before = {path: path.read_bytes() for path in (former / "ws/il").rglob("*.*") if path.is_file()}
        result = run(*command, "--workspace", str(former / "ws"), "--device", "cpu", "--json")
        assert result.exit_code == 0, (result.output, result.exception)
        assert {path: path.read_bytes() for path in before} == before


def test_indexed_tars_are_read_where_they_lie(former: Path, then: dict[str, Any]) -> None:
    rows = query(former / "indexed", "SELECT split, count(*) AS n FROM samples GROUP BY ALL ORDER BY ALL")
    assert rows.to_pylist() == then["indexed"]


def test_former_thumbnails_say_what_makes_them_again(former: Path) -> None:
    workspace = Workspace(former / "ws")
    with pytest.raises(WorkspaceError, match=r"of a former release.*: make the thumbnails \(size 8, format jpeg"):
        Thumbnails.read(workspace, CorpusMetadata.read(workspace), "8-jpeg")


@pytest.mark.slow
def test_former_run_says_that_it_cannot_be_continued(former: Path) -> None:
    common = ["--workspace", str(former / "ws"), "--select", "uniform", "--steps", "8", "--device", "cpu"]
    result = run("train", *common)
    assert isinstance(result.exception, RhostreamError)
    assert "run 'uniform' is of a former release" in str(result.exception)
    assert "--overwrite" in str(result.exception)
    assert run("train", *common, "--name", "again").exit_code == 0
