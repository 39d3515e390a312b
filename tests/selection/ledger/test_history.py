"""The history of a run: always the sum of its ledger, however it came about."""

import random
from pathlib import Path

import pyarrow as pa
import pytest
from helpers import tables

from rhostream.loaders.storage.workspace import Workspace
from rhostream.schema import HISTORY, LEDGER
from rhostream.selection.ledger import history, ledger
from rhostream.selection.ledger.history import history_name, update_history

PARTS = [f"{first:09d}-rank0.parquet" for first in (1, 11, 21, 31)]


def part(first: int) -> pa.Table:
    """Ten steps of three candidates each, with every kind of gap."""
    chance = random.Random(first)
    rows = []
    for step in range(first, first + 10):
        for key in chance.sample(["a", "b", "c", "d", "e"], 3):
            reason = chance.choice(
                [None, None, None, "filtered", "unreadable", "il_missing", "validation", "not_in_core_set"]
            )
            known = reason is None
            rows.append(
                {
                    "run": "r",
                    "epoch": 0,
                    "step": step,
                    "key": key,
                    "label": 0,
                    "reason": reason,
                    "loss": chance.random() if known and chance.random() < 0.8 else None,
                    "il": 0.25 if known else None,
                    "score": chance.random() if known else None,
                    "correct": chance.random() < 0.5 if known else None,
                    "selected": known and chance.random() < 0.5,
                }
            )
    return tables.table(LEDGER, rows)


def expected(parts: list[pa.Table]) -> dict[str, dict[str, object]]:
    """Row by row, in plain Python."""
    found: dict[str, dict[str, object]] = {}
    for row in pa.concat_tables(parts).to_pylist():
        sample = found.setdefault(
            row["key"],
            dict.fromkeys(HISTORY.names)
            | {
                "run": "r",
                "key": row["key"],
                **dict.fromkeys(
                    ("drawn", "selected", "scored", "filtered", "il_missing", "set_aside", "unreadable"), 0
                ),
            },
        )
        sample["drawn"] += 1
        sample["selected"] += row["selected"]
        sample["scored"] += row["score"] is not None
        if row["reason"] is not None:
            sample["set_aside" if row["reason"] in ("validation", "not_in_core_set") else row["reason"]] += 1
        sample["latest_step"] = row["step"]
        later = {"scored_step": row["step"], "latest_selected": row["selected"]} if row["score"] is not None else {}
        later |= {"latest_loss": row["loss"], "latest_correct": row["correct"], "il": row["il"]}
        sample |= {name: value for name, value in later.items() if value is not None}
    return found


def write(workspace: Workspace, numbers: range) -> None:
    for number in numbers:
        workspace.write_table(f"runs/r/ledger/{PARTS[number]}", part(1 + 10 * number))


def content(workspace: Workspace) -> bytes:
    return workspace.read_bytes(history_name("r", 0))


def test_it_adds_up_the_ledger(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write(workspace, range(4))
    update_history(workspace, "r", 0)
    table = workspace.read_table(history_name("r", 0))
    assert table.schema.equals(HISTORY)
    assert {row["key"]: row for row in table.to_pylist()} == expected([part(1 + 10 * number) for number in range(4)])


@pytest.mark.parametrize("rows_at_once", [1, 45, 1000])
def test_the_history_is_bytewise_the_same_however_often_updated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    whole, stepwise = Workspace(tmp_path / "whole"), Workspace(tmp_path / "stepwise")
    write(whole, range(4))
    update_history(whole, "r", 0)
    monkeypatch.setattr(history, "ROWS_AT_ONCE", rows_at_once)
    for number in range(4):
        write(stepwise, range(number, number + 1))
        if number != 1:
            update_history(stepwise, "r", 0)
    assert content(stepwise) == content(whole)


def test_a_ledger_that_goes_back_takes_its_history_along(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write(workspace, range(2))
    update_history(workspace, "r", 0)
    at_checkpoint = content(workspace)
    write(workspace, range(2, 4))
    update_history(workspace, "r", 0)
    run = ledger.Ledger(workspace, "r")
    run.go_on_after(20)
    assert workspace.names("runs/r/ledger") == PARTS[:2]
    assert not workspace.exists(history_name("r", 0))
    run.flush()
    assert content(workspace) == at_checkpoint


def test_going_back_to_where_it_stands_keeps_the_history(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write(workspace, range(2))
    update_history(workspace, "r", 0)
    before = content(workspace)
    ledger.Ledger(workspace, "r").go_on_after(20)
    assert content(workspace) == before
