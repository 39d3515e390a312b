"""A small workspace with two runs whose report is known, and a class name that is out to break the page."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from helpers import tables
from helpers.tiny import write_workspace
from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.models.costs import COST_NAMES
from rhostream.schema import IL, LEDGER, METRICS, REJECTS
from rhostream.selection.ledger.history import update_history

HOSTILE = "</script><script>alert(1)</script>\"'&$x_1$ \x01ü"
CLASSES = ("coat", "dress", HOSTILE)
SAMPLES, EPOCHS = 60, 4

#: What becomes of sample "s<n>" in the run `rho_loss`, by n % 10.
MISLABELED, REDUNDANT, SELECTED, NEVER_DRAWN, LESS_RELEVANT = (0,), (1,), (2, 3, 4), (5,), (6, 7, 8, 9)


def keys(*lasts: int) -> list[str]:
    """The samples whose number ends in one of these digits."""
    return [f"s{number}" for number in range(SAMPLES) if number % 10 in lasts]


def label_of(number: int) -> int:
    return (number * 7 + number // 3) % 3  # as `tiny.write_workspace` has it


def il_of(number: int, mislabeled: tuple[int, ...] = MISLABELED) -> float:
    return 4.0 + number / 100 if number % 10 in mislabeled else 0.2 + number / 1000


def fill(folder: Path, *, il: bool = True, runs: bool = True, truth: bool = False) -> Workspace:
    """60 training samples; see the constants for what becomes of them.

    Args:
        truth: with a column `clean_label`, in which half of what the IL model contradicts is wrong.
    """
    workspace = write_workspace(folder, (30, 30), test_rows=6)
    corpus = workspace.read_json("corpus.json")
    workspace.write_json("corpus.json", corpus | {"classes": list(CLASSES)})
    for shard in CorpusMetadata.read(workspace).shards:
        rows = workspace.read_table(shard.index)
        names = pa.array([CLASSES[label] for label in rows.column("label").to_pylist()])
        changed = rows.set_column(rows.column_names.index("class"), rows.schema.field("class"), names)
        if truth:
            clean = [
                (row["label"] + 1) % 3 if int(row["key"][1:]) % 20 == 0 else row["label"] for row in rows.to_pylist()
            ]
            changed = changed.append_column("clean_label", pa.array(clean, pa.int32()))
        workspace.write_table(shard.index, changed.replace_schema_metadata(rows.schema.metadata))
    hostile = {"source": "<img src=x onerror=alert(1)>", "key": "k", "reason": "html", "detail": "<!doctype html>"}
    workspace.write_table("rejects/000000.parquet", tables.table(REJECTS, [hostile]))
    if il:
        write_scores(workspace)
    if runs:
        _write_run(workspace, "rho_loss")
        _write_run(workspace, "uniform")
    return workspace


def write_scores(workspace: Workspace, mislabeled: tuple[int, ...] = MISLABELED) -> None:
    """An IL table for the training samples, in the order in which they lie in the shards.

    Args:
        mislabeled: last digits of the numbers of those whose label it contradicts.
    """
    workspace.write_json("il/strided_cnn/model.json", {})
    number = 0
    for shard in CorpusMetadata.read(workspace).split("train"):
        rows = []
        for row in workspace.read_table(shard.index).to_pylist():
            wrong = number % 10 in mislabeled
            guess = (row["label"] + 1) % 3 if wrong else row["label"]
            rows.append(
                {
                    "il_model": "strided_cnn",
                    "key": row["key"],
                    "shard": shard.name,
                    "row": row["row"],
                    "label": row["label"],
                    "il": il_of(number, mislabeled),
                    "predicted": guess,
                    "confidence": 0.9,
                    "in_sample": False,
                }
            )
            number += 1
        workspace.write_table(f"il/strided_cnn/scores/{shard.name}.parquet", tables.table(IL, rows))


def _write_run(workspace: Workspace, run: str) -> None:
    rows: list[dict[str, Any]] = []
    for epoch in range(EPOCHS):
        for number in range(SAMPLES):
            kind = number % 10
            if kind in NEVER_DRAWN:
                continue
            scored = run == "rho_loss"
            loss = {0: 4.5, 1: 0.01, 2: 2.5, 3: 2.5, 4: 2.5}.get(kind, 0.25)
            rows.append(
                {
                    "run": run,
                    "epoch": epoch,
                    "step": epoch * 4 + number // 15 + 1,
                    "key": f"s{number}",
                    "shard": f"train-{number // 30:06d}",
                    "row": number % 30,
                    "label": label_of(number),
                    "loss": loss if scored else None,
                    "il": il_of(number) if scored else None,
                    "score": loss - il_of(number) if scored else None,
                    "correct": kind in REDUNDANT if scored else None,
                    "selected": kind in SELECTED if scored else (number + epoch) % 3 == 0,
                    "reason": None if scored else "not_needed",
                }
            )
    workspace.write_table(f"runs/{run}/ledger/000000001-rank0.parquet", tables.table(LEDGER, rows))
    update_history(workspace, run, 0)
    # rho_loss is at 80% in 8 steps and 8 * 3 + 20 seconds, uniform in 16 steps and 16 seconds.
    accuracies = {"rho_loss": (0.6, 0.8, 0.85, 0.9), "uniform": (0.4, 0.6, 0.7, 0.8)}[run]
    lines = []
    for step, accuracy in zip((4, 8, 12, 16), accuracies, strict=True):
        costs = {f"{unit}_{cost}": 0.0 for unit in ("seconds", "flops") for cost in COST_NAMES}
        costs |= {"seconds_train": float(step), "seconds_evaluate": 1000.0, "flops_train": step * 1e9}
        if run == "rho_loss":
            costs |= {
                "seconds_score": 2.0 * step,
                "seconds_il_train": 15.0,
                "seconds_il_score": 5.0,
                "flops_score": 1e12,
            }
        lines.append(
            dict.fromkeys(METRICS.names)
            | costs
            | {"run": run, "step": step, "epoch": 0, "test_accuracy": accuracy, "train_loss": 1.0}
        )
    workspace.write_bytes(f"runs/{run}/metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    facts = {
        "format_version": 2,
        "config": {"select": run},
        "il": "strided_cnn" if run == "rho_loss" else None,
        "evaluated_on": "test",
    }
    workspace.write_json(f"runs/{run}/run.json", facts)
