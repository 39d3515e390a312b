"""How many of the wrong labels `rho explain mislabeled` finds, and how many of those that it names are wrong.

    python benchmarks/mislabeled.py --mnist DATA --clothing1m DATA --output benchmarks/results/mislabeled.json

MNIST with 10% uniform noise (DATA is a folder that `torchvision.datasets.MNIST(root=DATA)` can open), and real
clothing photographs in Clothing-1M's layout with 38% wrong labels, whose truth stands in DATA/truth.csv (columns key,
noisy_label, true_label) and is read by this script alone. A small CNN is the IL model: trained on a holdout, or on
folds, where every sample is scored. With a run named, samples whose label the target model has come to predict by
itself are left out.

Precision: of those named, the share whose label is wrong. Recall: of the wrong labels that the IL model has scored,
the share that is named.

Expected: on MNIST 80 to 88% of the wrong labels at 99% precision: the thresholds per class trade recall for it (without
them 97% at 96%). On the photographs a few hundred or thousand of which teach a small network little: well above the
base rate. Some 10 minutes on 2 cores.
"""

import argparse
import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from machine import machine

from rhostream.loaders import Workspace
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.config.manifest import Noise, load_manifest
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.explain.ask import Options, explain
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.shards.write import write_shards
from rhostream.pipeline.sql.database import query
from rhostream.pipeline.training.loop import train

MANIFESTS = Path(__file__).resolve().parents[1] / "data_manifests"


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    corpus: str
    split: dict[str, Any]
    il: ILTrainConfig
    run: TrainConfig


SMALL = ILTrainConfig(model="small_cnn", image_size=32)
CASES = (
    Case(
        name="MNIST, 10% noise, holdout of a tenth",
        corpus="mnist",
        split={"holdout": 0.1},
        il=ILTrainConfig(model="small_cnn"),
        run=TrainConfig(model="mlp", steps=500, schedule="constant", average_weights=False),
    ),
    Case(
        name="MNIST, 10% noise, 2 folds",
        corpus="mnist",
        split={"folds": 2},
        il=ILTrainConfig(model="small_cnn"),
        run=TrainConfig(model="mlp", steps=500, schedule="constant", average_weights=False),
    ),
    Case(
        name="clothing1m, holdout of 30%",
        corpus="clothing1m",
        split={"holdout": 0.3},
        il=SMALL,
        run=TrainConfig(model="bn_cnn", image_size=32, steps=200, schedule="cosine", average_weights=False),
    ),
    Case(
        name="clothing1m, 5 folds",
        corpus="clothing1m",
        split={"folds": 5},
        il=SMALL,
        run=TrainConfig(model="bn_cnn", image_size=32, steps=200, schedule="cosine", average_weights=False),
    ),
)


def run_case(case: Case, root: str, folder: Path) -> dict[str, object]:
    manifest = load_manifest(MANIFESTS / f"{case.corpus}.toml", {"root": root, "shard_size": 10_000, **case.split})
    if case.corpus == "mnist":
        manifest = replace(manifest, noise=Noise(kind="uniform", rate=0.1, seed=1))
    workspace = Workspace(folder / "".join(letter if letter.isalnum() else "-" for letter in case.name))
    write_shards(workspace, manifest)
    metadata = train_il(workspace, case.il).metadata
    score_il(workspace, ILScoreConfig(name=metadata.name))
    run = train(workspace, replace(case.run, select="rho_loss", prefilter=0.0))
    wrong = truth(workspace, Path(root) / "truth.csv" if case.corpus == "clothing1m" else None)
    scored = query(workspace, "SELECT key FROM il WHERE NOT in_sample").column("key").to_pylist()
    total = sum(wrong[key] for key in scored)
    result: dict[str, object] = {
        "case": case.name,
        "scored": len(scored),
        "wrong": total,
        "base_rate": round(total / len(scored), 4),
    }
    for name, options in (("il", Options()), ("il_and_run", Options(run=run.name))):
        named = explain(workspace, "mislabeled", options=options).column("key").to_pylist()
        found = [wrong[key] for key in named]
        at = {str(k): round(sum(found[:k]) / k, 4) for k in (100, 500, 1000, 5000) if k <= len(found)}
        result[name] = {
            "named": len(named),
            "precision": round(sum(found) / len(named), 4),
            "recall": round(sum(found) / total, 4),
            "precision_at": at,
        }
    reasons = explain(workspace, "reasons", options=Options(run=run.name)).to_pylist()
    result["reasons"] = {row["reason"]: row["samples"] for row in reasons}
    return result


def truth(workspace: Workspace, table: Path | None) -> dict[str, bool]:
    """Is the label of this key wrong?"""
    if table is None:
        rows = query(workspace, "SELECT key, label <> clean_label AS wrong FROM samples WHERE split = 'train'")
        return {row["key"]: row["wrong"] for row in rows.to_pylist()}
    with table.open(newline="") as stream:
        known = {row["key"]: row["noisy_label"] != row["true_label"] for row in csv.DictReader(stream)}
    rows = query(workspace, "SELECT key, source FROM samples WHERE split = 'train'")
    return {row["key"]: known[row["source"]] for row in rows.to_pylist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", help="folder that holds MNIST/raw")
    parser.add_argument("--clothing1m", help="folder in Clothing-1M's layout, with truth.csv")
    parser.add_argument("--workspaces", default="workspaces/mislabeled", help="where to work; can be continued")
    parser.add_argument("--output", help="JSON file for the results")
    arguments = parser.parse_args()
    roots = {"mnist": arguments.mnist, "clothing1m": arguments.clothing1m}
    results = []
    for case in CASES:
        if (root := roots[case.corpus]) is not None:
            results.append(run_case(case, root, Path(arguments.workspaces)))
            print(json.dumps(results[-1], indent=1), flush=True)
    if arguments.output:
        report = {"benchmark": "mislabeled", "machine": machine(), "results": results}
        Path(arguments.output).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
