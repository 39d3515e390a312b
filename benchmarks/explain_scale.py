"""How long the tables and every ready question take over a ledger of 10M and of 200M candidates.

    python benchmarks/explain_scale.py --rows 10e6 200e6 --output benchmarks/results/explain_scale.json

Writes a workspace of 1M samples (14 classes, 38% of the labels wrong, Clothing-1M's names) with its IL table and the
ledger of a run of super-batches of 320, of which 32 are selected by loss - IL; every sample is drawn once an epoch.
Another run of 1M candidates stands beside it. Ledger parts have the size and layout of `selection/ledger/ledger.py`,
and the history is made by `selection/ledger/history.py`. 10M candidates take 0.35 GB, 200M take 7 GB and about 10
minutes of a core to write; what is there is not written again. Then each statement is run in plain DuckDB over the
views, with 2 threads and 4 GB, and its rows are counted.

Expected: every answer below 2 s at 10M and below 20 s at 200M.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from machine import machine

from rhostream import schema
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.explain.ask import Options, explanation
from rhostream.pipeline.explain.titles import QUESTIONS
from rhostream.pipeline.sql.views import create_views
from rhostream.selection.ledger.history import update_history
from rhostream.selection.ledger.ledger import PART_ROWS, ROW_GROUP_ROWS

SAMPLES, SHARD_ROWS, CLASSES, WRONG = 1_000_000, 10_000, 14, 0.38
SUPER_BATCH, BATCH = 320, 32
LIMITS = "SET threads = 2; SET memory_limit = '4GB';"
RUN, OTHER, OTHER_ROWS = "rho_loss", "uniform_il", 1_000_000


class Corpus:
    """Samples with a difficulty; columns of length SAMPLES."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        number = np.arange(SAMPLES)
        self.clean = random.integers(0, CLASSES, SAMPLES).astype(np.int32)
        self.wrong = random.random(SAMPLES) < WRONG
        moved = (self.clean + random.integers(1, CLASSES, SAMPLES)) % CLASSES
        self.label = np.where(self.wrong, moved, self.clean).astype(np.int32)
        self.shard, self.row = number // SHARD_ROWS, (number % SHARD_ROWS).astype(np.int32)
        self.il = np.where(self.wrong, random.gamma(8, 0.5, SAMPLES), random.exponential(0.5, SAMPLES)).astype(
            np.float32
        )
        self.predicted = np.where(self.il > 1.0, self.clean, self.label).astype(np.int32)
        ids = random.integers(10**9, 10**10, SAMPLES), random.integers(10**8, 10**9, SAMPLES)
        self.keys = pa.array(
            [f"images-{b % 10}-{b % 100:02d}-{a}_{b}-{int(a) * int(b) % 16**6:06x}" for a, b in zip(*ids, strict=True)]
        )
        self.shards = pa.array([f"train-{shard:06d}" for shard in range(SAMPLES // SHARD_ROWS)])

    def write(self, workspace: Workspace) -> None:
        hashes = np.random.default_rng(1).bytes(16 * SAMPLES).hex()
        for shard, name in enumerate(self.shards.to_pylist()):
            part = slice(shard * SHARD_ROWS, (shard + 1) * SHARD_ROWS)
            keys, label = self.keys[part], self.label[part]
            count = len(keys)
            of_hash = [hashes[32 * n : 32 * n + 32] for n in range(part.start, part.stop)]
            of_hash[1] = of_hash[0]  # one group of duplicates a shard
            index = {
                "key": keys,
                "split": ["train"] * count,
                "fold": np.full(count, -1, np.int16),
                "shard": [name] * count,
                "row": self.row[part],
                "offset": np.arange(count) * 20_480,
                "size": np.full(count, 16_000),
                "ext": ["jpg"] * count,
                "label": label,
                "class": [f"class {n}" for n in label],
                "source": [f"images/{key}.jpg" for key in keys.to_pylist()],
                "content_hash": of_hash,
                "width": np.full(count, 256, np.int32),
                "height": np.full(count, 256, np.int32),
            }
            columns = pa.schema([*schema.SAMPLES, pa.field("clean_label", pa.int32())])
            workspace.write_table(
                f"index/{name}.parquet", pa.table({**index, "clean_label": self.clean[part]}, columns)
            )
            scores = {
                "il_model": ["resnet18"] * count,
                "key": keys,
                "shard": [name] * count,
                "row": self.row[part],
                "label": label,
                "il": self.il[part],
                "predicted": self.predicted[part],
                "confidence": np.exp(-self.il[part]),
                "entropy": self.il[part] / 2,
                "in_sample": np.zeros(count, bool),
            }
            workspace.write_table(f"il/resnet18/scores/{name}.parquet", pa.table(scores, schema.IL))
        rejects = {name: [f"{name} {n}" for n in range(50_000)] for name in schema.REJECTS.names}
        rejects["reason"] = ["truncated", "missing", "empty", "html", "label_missing"] * 10_000
        workspace.write_table("rejects/000000.parquet", pa.table(rejects, schema.REJECTS))
        workspace.write_json("corpus.json", {"classes": [f"class {n}" for n in range(CLASSES)]})


def write_run(workspace: Workspace, corpus: Corpus, run: str, rows: int, seed: int) -> None:
    """The ledger, history and metrics of a run of so many candidates."""
    assert PART_ROWS % SUPER_BATCH == 0
    last = max(1, rows // SUPER_BATCH)
    for number, ids in enumerate(drawn(rows, seed)):
        first = 1 + number * (PART_ROWS // SUPER_BATCH)
        name = f"runs/{run}/ledger/{first:09d}-rank0.parquet"
        if not workspace.exists(name):
            table = part(corpus, run, ids, first, progress=first / last, epoch=number * PART_ROWS // SAMPLES, seed=seed)
            workspace.write_table(name, table, row_group_rows=ROW_GROUP_ROWS)
    update_history(workspace, run, 0)
    every = max(1, last // 20)
    counts = {"candidates": every * SUPER_BATCH, "selected": every * BATCH}
    shares = {"candidates_mislabeled": WRONG, "selected_mislabeled": WRONG / 2}
    steps = range(every, last + 1, every)
    lines = [{"run": run, "step": step, "epoch": 0, **counts, **shares} for step in steps]
    workspace.write_bytes(f"runs/{run}/metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    workspace.write_json(f"runs/{run}/run.json", {"format_version": 2, "il": "resnet18"})


def drawn(rows: int, seed: int) -> Iterator[np.ndarray]:
    """Numbers of the candidates, a part of the ledger at a time."""
    for epoch in range(-(-rows // SAMPLES)):
        order = np.random.default_rng([seed, epoch]).permutation(SAMPLES)
        yield order[: rows - epoch * SAMPLES]


def part(corpus: Corpus, run: str, ids: np.ndarray, first: int, *, progress: float, epoch: int, seed: int) -> pa.Table:
    random = np.random.default_rng([seed, first])
    il, count = corpus.il[ids], len(ids)
    learnt = np.float32(np.exp(-5 * progress))
    loss = random.exponential(0.3 + 2 * learnt, count).astype(np.float32) + np.where(corpus.wrong[ids], il, il * learnt)
    score = (loss - il).astype(np.float32)
    best = np.argpartition(-score.reshape(-1, SUPER_BATCH), BATCH, axis=1)[:, :BATCH]
    selected = np.zeros((count // SUPER_BATCH, SUPER_BATCH), bool)
    np.put_along_axis(selected, best, True, axis=1)
    step = first + np.arange(count) // SUPER_BATCH
    columns = {
        "run": pa.repeat(run, count),
        "epoch": np.full(count, epoch, np.int32),
        "step": step,
        "rank": np.zeros(count, np.int16),
        "key": corpus.keys.take(pa.array(ids)),
        "shard": corpus.shards.take(pa.array(corpus.shard[ids])),
        "row": corpus.row[ids],
        "label": corpus.label[ids],
        "loss": loss.astype(np.float32),
        "il": il,
        "score": score,
        "correct": loss < 0.7,
        "selected": selected.ravel(),
        "selection": pa.repeat(run, count),
        "weight": pa.array(np.ones(count, np.float32), mask=~selected.ravel()),
        "trained": pa.array(step, pa.int64(), mask=~selected.ravel()),
        "reason": pa.nulls(count, pa.string()),
    }
    return pa.table({name: columns[name] for name in schema.LEDGER.names}, schema=schema.LEDGER)


def statements(workspace: Workspace, rows: int) -> dict[str, str]:
    """What is asked, by name."""
    steps = rows // SUPER_BATCH
    tenth = (steps // 2, steps // 2 + 1_000_000 // SUPER_BATCH)
    asked = {
        f"view {name}": f"SELECT count(*), count({column}) FROM {name}"
        for name, column in (
            ("samples", "source"),
            ("rejects", "detail"),
            ("il", "il"),
            ("history", "latest_loss"),
            ("ledger", "loss"),
            ("metrics", "step"),
        )
    }
    asked["view ledger, mean by class"] = (
        f"SELECT label, avg(loss), avg(selected::INT) FROM ledger WHERE run = '{RUN}' GROUP BY label"
    )
    asked["view ledger, one step"] = f"SELECT * FROM ledger WHERE run = '{RUN}' AND step = {steps // 2}"
    for question, title in QUESTIONS.items():
        runs = (RUN, OTHER) if title.runs else ()
        named = Options(run=RUN if "run" in title.takes else None, limit=20)
        asked[question] = explanation(workspace, question, *runs, options=named)
        if "steps" in title.takes:
            window = Options(run=named.run, steps=tenth, limit=20)
            asked[f"{question}, steps of 1M candidates"] = explanation(workspace, question, *runs, options=window)
    asked["classes --by clean_label"] = explanation(
        workspace, "classes", options=Options(run=RUN, by="clean_label", limit=20)
    )
    return asked


def measure(workspace: Workspace, rows: int, repeats: int) -> list[dict[str, object]]:
    results: list[dict[str, object]] = []
    for name, sql in statements(workspace, rows).items():
        walls, cpus, answer = [], [], 0
        for _ in range(repeats):
            with duckdb.connect() as connection:
                connection.execute(LIMITS)
                for view in create_views(workspace):
                    connection.execute(view)
                wall, cpu = time.perf_counter(), time.process_time()
                found = connection.execute(
                    f"SELECT count(*) FROM ({sql})" if not sql.startswith("SELECT count") else sql
                )
                answer = found.fetchall()[0][0]
                walls.append(time.perf_counter() - wall)
                cpus.append(time.process_time() - cpu)
        results.append(
            {"asked": name, "rows": answer, "seconds": round(min(walls), 2), "cpu_seconds": round(min(cpus), 2)}
        )
        print(f"{rows:>12,}  {name:<42} {min(walls):7.2f} s {min(cpus):7.2f} CPU s  {answer} rows", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, nargs="+", default=[10e6, 200e6], help="candidates in the ledger")
    parser.add_argument("--workspaces", default="workspaces/explain_scale", help="where to work; can be continued")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts: the machine may be shared")
    parser.add_argument("--output", help="JSON file for the results")
    arguments = parser.parse_args()
    corpus, results = Corpus(), []
    for rows in map(int, arguments.rows):
        workspace = Workspace(Path(arguments.workspaces) / str(rows))
        if not workspace.exists("corpus.json"):
            corpus.write(workspace)
        write_run(workspace, corpus, OTHER, OTHER_ROWS, seed=2)
        write_run(workspace, corpus, RUN, rows, seed=1)
        results.append({"ledger_rows": rows, "answers": measure(workspace, rows, arguments.repeats)})
        on = machine() | {"duckdb": duckdb.__version__}
        report = {"benchmark": "explain_scale", "machine": on, "limits": LIMITS, "results": results}
        if arguments.output:
            Path(arguments.output).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
