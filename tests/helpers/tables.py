"""A small workspace of real Parquet and JSON lines, whose answers are known."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from rhostream import schema
from rhostream.loaders.storage.workspace import Workspace
from rhostream.selection.ledger.history import update_history

CLASSES = ("shirt", "dress", "coat")
TRAIN = [f"k{number:02d}" for number in range(12)]
HOLDOUT = ["h00", "h01"]
LABELS = {key: number % 3 for number, key in enumerate(TRAIN + HOLDOUT)}

#: What the ready questions are about, by construction.
OVERLOOKED, MISLABELED, REDUNDANT, NEVER_DRAWN = "k00", "k01", "k02", "k03"

_ANY: dict[pa.DataType, Any] = {
    pa.string(): "",
    pa.int16(): 0,
    pa.int32(): 0,
    pa.int64(): 0,
    pa.float32(): 0.5,
    pa.bool_(): False,
}


def table(columns: pa.Schema, rows: Iterable[Mapping[str, Any]], **extra: pa.DataType) -> pa.Table:
    """A table with the columns of `columns` and `extra`; what a row does not give has some value of the right type."""
    whole = pa.schema([*columns, *(pa.field(name, kind) for name, kind in extra.items())])
    return pa.Table.from_pylist(
        [{field.name: row.get(field.name, _ANY[field.type]) for field in whole} for row in rows], whole
    )


def fill(location: str) -> Workspace:
    """Three shards, two IL models, the runs `uniform` and `rho_loss` of three epochs, one reject."""
    workspace = Workspace(location)
    workspace.write_json("corpus.json", {})
    for shard, split, keys in (
        ("train-000000", "train", TRAIN[:6]),
        ("train-000001", "train", TRAIN[6:]),
        ("holdout-000000", "holdout", HOLDOUT),
    ):
        workspace.write_table(f"index/{shard}.parquet", _samples(shard, split, keys))
        for model in ("strided_cnn", "other"):
            workspace.write_table(f"il/{model}/scores/{shard}.parquet", _scores(model, shard, keys))
    for run in ("uniform", "rho_loss"):
        for epoch in range(3):
            workspace.write_table(f"runs/{run}/ledger/{1 + epoch * 4:09d}-rank0.parquet", _ledger(run, epoch))
        update_history(workspace, run, 0)
        lines = [{"run": run, "step": step, "epoch": 0, "test_accuracy": 0.1 * step, "new": 1} for step in (1, 2)]
        workspace.write_bytes(f"runs/{run}/metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    reject = {"source": "a/b.jpg", "key": "a-b", "reason": "html", "detail": "<!DOCTYPE html>"}
    workspace.write_table("rejects/000000.parquet", table(schema.REJECTS, [reject]))
    return workspace


def _samples(shard: str, split: str, keys: list[str]) -> pa.Table:
    rows = [
        {
            "key": key,
            "split": split,
            "shard": shard,
            "row": row,
            "label": LABELS[key],
            "class": CLASSES[LABELS[key]],
            "source": f"images/{key}.jpg",
            "clean_label": 2 if key == MISLABELED else LABELS[key],
        }
        for row, key in enumerate(keys)
    ]
    return table(schema.SAMPLES, rows, **({"clean_label": pa.int32()} if split == "train" else {}))


def _scores(model: str, shard: str, keys: list[str]) -> pa.Table:
    wrong = {"strided_cnn": {MISLABELED, *HOLDOUT}, "other": {"k05"}}[model]
    rows = [
        {
            "il_model": model,
            "key": key,
            "shard": shard,
            "row": row,
            "label": LABELS[key],
            "il": 4.0 if key in wrong else _il(key),
            "confidence": 0.9,
            "in_sample": key in HOLDOUT,
            "predicted": (LABELS[key] + 1) % 3 if key in wrong else LABELS[key],
        }
        for row, key in enumerate(keys)
    ]
    return table(schema.IL, rows)


def _il(key: str) -> float:
    return {MISLABELED: 4.0, REDUNDANT: 0.02}.get(key, 0.5 + 0.01 * LABELS[key])


def _ledger(run: str, epoch: int) -> pa.Table:
    drawn = [key for key in TRAIN if key != NEVER_DRAWN or run == "uniform"]
    skipped = {OVERLOOKED, MISLABELED, REDUNDANT} if run == "rho_loss" else {"k05"}
    rows = []
    for number, key in enumerate(drawn):
        # At first the model errs on all; the decoy k04 is redundant to the run `uniform` alone.
        learnt = epoch > 0 and (key == REDUNDANT or (key == "k04" and run == "uniform"))
        rows.append(
            {
                "run": run,
                "epoch": epoch,
                "step": 1 + epoch * 4 + number // 3,
                "key": key,
                "label": LABELS[key],
                "loss": 0.01 if learnt else 2.0,
                "il": _il(key),
                "score": 1.0,
                "correct": learnt,
                "selected": key not in skipped,
                "reason": None,
            }
        )
    return table(schema.LEDGER, rows)
