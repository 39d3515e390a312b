"""Steps and seconds to a target accuracy where scores are some steps old: what `rho train --staleness` costs.

    python benchmarks/staleness.py --root DATA [--staleness 0,1,2,4,8] [--seeds 3]

DATA is a folder that `torchvision.datasets.MNIST(root=DATA)` can open. MNIST with 10% uniform noise, `rho_loss` at 32
of 320, a small MLP, AdamW at a constant rate. In one process: scorers write the same ledger, so the steps are those of
any number of scorers. Of the CPU-seconds until then, all but evaluations, those that do not score are what is left to
the trainer where scorers have cores of their own. Writes `benchmarks/results/staleness.json`, from which the docs take
their table. Ten minutes on one core.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from machine import machine

from rhostream.loaders import Workspace
from rhostream.pipeline.config import ILScoreConfig, ILTrainConfig, TrainConfig
from rhostream.pipeline.config.manifest import Noise, load_manifest
from rhostream.pipeline.il import score_il, train_il
from rhostream.pipeline.shards.write import write_shards
from rhostream.pipeline.training.loop import train

MANIFEST = Path(__file__).resolve().parents[1] / "data_manifests" / "mnist.toml"
OUTPUT = Path(__file__).parent / "results" / "staleness.json"
TARGET, STEPS = 0.9, 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder that holds MNIST/raw")
    parser.add_argument("--workspace", default="workspaces/staleness", help="where to work; can be continued")
    parser.add_argument("--staleness", default="0,1,2,4,8")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    manifest = load_manifest(str(MANIFEST), {"root": arguments.root, "holdout": 0.1})
    workspace = Workspace(arguments.workspace)
    write_shards(workspace, replace(manifest, noise=Noise(kind="uniform", rate=0.1, seed=1)))
    train_il(workspace, ILTrainConfig(model="small_mlp"))
    score_il(workspace, ILScoreConfig(splits=("train",)))
    results: dict[str, list[dict[str, float] | None]] = {}
    for seed in range(arguments.seeds):
        for staleness in map(int, arguments.staleness.split(",")):
            config = TrainConfig(
                name=f"stale-{staleness}-{seed}",
                select="rho_loss",
                model="small_mlp",
                steps=STEPS,
                evaluate_every=10,
                threads=1,
                workers="0",
                evaluate_at_most=2000,
                schedule="constant",
                average_weights=False,
                staleness=staleness,
                seed=seed,
            )
            lines = train(workspace, config).metrics
            there = next((line for line in lines if line["test_accuracy"] >= TARGET), None)
            results.setdefault(str(staleness), []).append(there and costs_of(there))
            print(f"staleness {staleness}, seed {seed}: {results[str(staleness)][-1]} to {TARGET:.0%}", flush=True)
    result = {
        "benchmark": "staleness",
        "machine": machine(),
        "target": TARGET,
        "budget": STEPS,
        "to_target": results,
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


def costs_of(line: Mapping[str, Any]) -> dict[str, float]:
    """Steps and CPU-seconds up to this line of the metrics; "trainer": without what scores."""
    spent = {cost: float(line[f"cpu_seconds_{cost}"]) for cost in ("load", "score", "train")}
    total = sum(spent.values())
    return {"steps": line["step"], "cpu_seconds": total, "trainer_cpu_seconds": total - spent["score"]}


if __name__ == "__main__":
    main()
