"""What selecting image-text pairs gains and costs where many captions are wrong, alone and jointly chosen.

    python ../shared/data/pairs/unpack_pairs.py fashion PAIRS --mismatched 0.4
    python benchmarks/pairs.py PAIRS

PAIRS holds tars of product photographs and their titles: `train-*` (31,645 pairs, 40% of the captions another one's, of
another color or saying nothing), `reference-*` (5,081, true: the holdout), `test-*` (1,579, true), and truth.csv, which
only this script reads. Learner and reference are small_clip both (1.9M parameters, 32 pixels), of the same --loss; the
other loss wants another workspace and another output.
Uniform sampling has a cosine schedule over its own budget; so has every selection over its own, shorter one. Evaluated
on all test pairs; the target is the recall@10 (mean of both ways) that uniform ends with, by the seed where that is
lowest.

Of each run: steps, samples seen (candidates that were scored or, by uniform sampling, trained on), samples trained on,
seconds and CPU-seconds until the target, a tenth of the reference model charged; the share of wrong captions among the
selected in the first third and over the whole run; and of the reference table, how well it tells wrong captions from
true ones. `drrho` leaves nothing out, and weights. The number of the others is the share of candidates left out.
`small` rows score thumbnails of 16 pixels (Flexi-JEST's saving), a tenth of whose making is charged, too; `flexi` rows
train half of each batch on them. A twin (--proxy) is left out: it has the reference's architecture, here the learner's
own, and so saves nothing.

One reference model for all seeds of the learner and its order; one thread. Finished runs of the workspace are taken up
again, and what the output holds of other variants and seeds is kept. Expected: the table of docs/pairs.md. About a
CPU-minute a run.
"""

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from machine import machine

from rhostream.loaders import Workspace
from rhostream.pipeline.config import ILScoreConfig, ILTrainConfig, Manifest, ThumbnailsConfig, TrainConfig
from rhostream.pipeline.il import ILMetadata, score_il, train_il
from rhostream.pipeline.shards import write_shards
from rhostream.pipeline.sql import query
from rhostream.pipeline.thumbnails import write_thumbnails
from rhostream.pipeline.training import Run, train

OUTPUT = Path(__file__).parent / "results" / "pairs.json"
SMALL: Final = 16  # pixels of the thumbnails
IL_RUNS: Final = 10  # among which the reference model and the thumbnails are shared

#: By name: selection function, candidates for each sample trained on, share of uniform's steps, what is scored, and the
#: share of each batch that is trained on these thumbnails.
VARIANTS: Final[dict[str, tuple[str, float, float, str, float]]] = {
    "uniform": ("uniform", 1, 1.0, "none", 0.0),
    "drrho": ("drrho", 1, 1.0, "none", 0.0),
    "learnability 0.5": ("learnability", 2, 0.6, "none", 0.0),
    "easy_reference 0.5": ("easy_reference", 2, 0.6, "none", 0.0),
    "jest 0.5": ("jest", 2, 0.6, "none", 0.0),
    "jest 0.5 small": ("jest", 2, 0.6, f"{SMALL}-raw", 0.0),
    "jest 0.5 flexi": ("jest", 2, 0.6, f"{SMALL}-raw", 0.5),
    "learnability 0.8": ("learnability", 5, 0.4, "none", 0.0),
    "easy_reference 0.8": ("easy_reference", 5, 0.4, "none", 0.0),
    "jest 0.8": ("jest", 5, 0.4, "none", 0.0),
    "jest 0.8 small": ("jest", 5, 0.4, f"{SMALL}-raw", 0.0),
    "jest 0.9": ("jest", 10, 0.4, "none", 0.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--workspace", type=Path, help="kept, to go on from; default: a temporary one")
    parser.add_argument("--loss", choices=["softmax", "sigmoid"], default="softmax", help="of learner and reference")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=300, help="of uniform sampling")
    parser.add_argument("--reference-steps", type=int, default=0, help="at most; default: until recall rises no more")
    parser.add_argument("--only", nargs="+", choices=[*VARIANTS], default=[*VARIANTS], metavar="VARIANT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("RHO_CACHE", f"{folder}/cache")
        workspace = Workspace(asked.workspace or f"{folder}/workspace")
        truth = truth_of(asked.pairs / "truth.csv")
        before = json.loads(asked.output.read_text()) if asked.output.exists() else {"runs": []}
        settings = {"loss": asked.loss, "batch_size": asked.batch_size}
        if other := {name: before[name] for name, value in settings.items() if before.get(name, value) != value}:
            parser.error(f"{asked.output} holds runs of {other}, not of {settings}: name another --output")
        thumbnails = prepare(workspace, asked, before.get("thumbnails_cpu_seconds"))
        runs = {(run["variant"], run["seed"]): run for run in before["runs"]}
        for seed in asked.seeds:
            for name in asked.only:
                run = run_of(workspace, name, seed, asked)
                charged = 0.0 if VARIANTS[name][3] == "none" else thumbnails / IL_RUNS
                runs[name, seed] = {"variant": name, "seed": seed, **outcome(workspace, run, truth, charged)}
        ends = [run["end"]["recall"] for (name, _), run in runs.items() if name == "uniform"]
        target = min(ends, default=0.0)
        for run in runs.values():
            run["reached"] = next((point for point in run["curve"] if (point["recall"] or 0.0) >= target), None)
        found = {
            "benchmark": "pairs",
            "machine": machine(),
            **settings,
            "thumbnails_cpu_seconds": thumbnails,
            "wrong": sum(map(bool, truth.values())) / len(truth),
            "reference": reference(workspace, truth),
            "target": target,
            "runs": sorted(runs.values(), key=lambda run: ([*VARIANTS].index(run["variant"]), run["seed"])),
        }
        asked.output.write_text(json.dumps(found, indent=1) + "\n")
        for each in found["runs"]:
            print({name: value for name, value in each.items() if name != "curve"})


def truth_of(file: Path) -> dict[str, str]:
    """By key what is wrong with the caption, "" where nothing is."""
    with file.open(encoding="utf-8", newline="") as stream:
        return {row["key"]: row["noise"] for row in csv.DictReader(stream)}


def prepare(workspace: Workspace, asked: argparse.Namespace, thumbnails: float | None) -> float:
    """Shards, thumbnails, the reference model and its table; what is there is kept.

    Args:
        thumbnails: what their making took; None where it has not been measured, and they are made anew.

    Returns:
        What it took, CPU-seconds.
    """
    manifest = Manifest(
        name="pairs",
        format="webdataset",
        task="pairs",
        root=str(asked.pairs),
        holdout=0.0,
        options={"text": "txt", "splits": {"reference-*": "holdout", "test-*": "test"}},
        image={"size": 32},
        text={"tokenizer": "words", "length": 16},
    )
    write_shards(workspace, manifest, workers=0)
    begin = time.process_time()
    write_thumbnails(workspace, ThumbnailsConfig(size=SMALL, format="raw", workers=0, overwrite=thumbnails is None))
    spent = time.process_time() - begin
    config = ILTrainConfig(
        model="small_clip",
        contrastive_loss=asked.loss,
        batch_size=asked.batch_size,
        steps=asked.reference_steps,
        device="cpu",
        threads=1,
    )
    train_il(workspace, config)
    score_il(workspace, ILScoreConfig(device="cpu", threads=1))
    return spent if thumbnails is None else thumbnails


def reference(workspace: Workspace, truth: Mapping[str, str]) -> dict[str, Any]:
    """How its reference model was trained, and how well it finds wrong captions: those that it ranks lowest."""
    model = ILMetadata.read(workspace, "small_clip").models[0]
    rows = query(
        workspace,
        "SELECT key FROM il JOIN samples USING (key) WHERE split = 'train' ORDER BY (rank - 1) / greatest(compared, 1) "
        "DESC, similarity, key",
    )["key"].to_pylist()
    noise = [truth[key] for key in rows]
    wrong = sum(map(bool, noise))
    kinds = sorted({each for each in noise if each})
    return {
        "steps": model.best_step,
        "recall": model.best.validation_accuracy,
        "pairs": len(rows),
        "found": [_found(noise, wrong, count) for count in (wrong // 4, wrong // 2, wrong)],
        "kinds": {kind: _share(noise[:wrong], kind, noise.count(kind)) for kind in kinds},
    }


def _found(noise: Sequence[str], wrong: int, count: int) -> dict[str, float]:
    hits = sum(map(bool, noise[:count]))
    return {"listed": count, "precision": hits / count, "recall": hits / wrong}


def _share(noise: Sequence[str], kind: str, of: int) -> float:
    return noise.count(kind) / of


def run_of(workspace: Workspace, name: str, seed: int, asked: argparse.Namespace) -> Run:
    select, ratio, share, thumbnails, mixed = VARIANTS[name]
    steps = round(share * asked.steps)
    config = TrainConfig(
        name=f"{name.replace(' ', '-')}-{seed}",
        select=select,
        model="small_clip",
        contrastive_loss=asked.loss,
        batch_size=asked.batch_size,
        super_batch_size=round(ratio * asked.batch_size),
        steps=steps,
        thumbnails=thumbnails,
        mixed_resolution=mixed,
        warmup=0.05,
        evaluate_every=max(1, asked.steps // 20),
        il_runs=IL_RUNS,
        seed=seed,
        device="cpu",
        threads=1,
        workers="0",
        tensorboard=False,
    )
    return train(workspace, config)


def quality_of(metrics: Sequence[Mapping[str, Any]]) -> list[float]:
    return [line["test_accuracy"] for line in metrics if line["test_accuracy"] is not None]


def outcome(workspace: Workspace, run: Run, truth: Mapping[str, str], thumbnails: float) -> dict[str, Any]:
    """What a run came to, and its curve, this much of the thumbnails charged (CPU-seconds of one thread)."""
    curve = []
    seen = trained = 0
    for line in run.metrics:
        seen, trained = seen + line["candidates"], trained + line["selected"]
        costs = {unit: sum(line[f"{unit}_{cost}"] or 0.0 for cost in COSTS) for unit in UNITS}
        costs = {unit: spent + thumbnails * (unit != "flops") for unit, spent in costs.items()}
        point = {"step": line["step"], "seen": seen, "trained": trained, **costs, "recall": line["test_accuracy"]}
        curve.append(point)
    last = run.metrics[-1]["step"]
    return {
        "end": curve[-1],
        "best": max(quality_of(run.metrics)),
        "wrong_first_third": _wrong(workspace, run.name, truth, last // 3),
        "wrong_selected": _wrong(workspace, run.name, truth, last),
        "curve": curve,
    }


COSTS: Final = ("load", "score", "train", "il_train", "il_score")
UNITS: Final = ("seconds", "cpu_seconds", "flops")


def _wrong(workspace: Workspace, run: str, truth: Mapping[str, str], until: int) -> float:
    sql = f"SELECT key FROM ledger WHERE run = '{run}' AND selected AND step <= {until}"
    keys = query(workspace, sql)["key"].to_pylist()
    return sum(bool(truth[key]) for key in keys) / len(keys)


if __name__ == "__main__":
    main()
