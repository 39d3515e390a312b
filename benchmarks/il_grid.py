"""The length that IL training finds by itself, beside a grid of lengths and learning rates.

    python benchmarks/il_grid.py --case emoji-40=emoji-40.toml --output benchmarks/results/il_grid.json

A case is a name and a manifest; half of its samples are held out, and train strided_cnn on 32 pixels. `rho il train` at
its defaults stops by itself; the grid trains for each of its lengths, at each of its rates, which falls linearly to
zero at the end, and keeps the best evaluation of each, as `rho il train` does. Losses are those of the same validation
samples; CPU-seconds hold the evaluations, the shards hold the images at 32 pixels. One thread; finished models are
taken up again. Takes three minutes a case.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from machine import machine

from rhostream.loaders import Workspace
from rhostream.pipeline.config.il_config import ILTrainConfig
from rhostream.pipeline.config.manifest import load_manifest
from rhostream.pipeline.il.metadata import il_costs
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.shards.write import write_shards

SIZE: Final = 32
LENGTHS: Final = (50, 100, 200, 400)
RATES: Final = (1e-3, 2e-3, 4e-3)


def run_case(name: str, manifest: str, folder: Path) -> dict[str, Any]:
    workspace = Workspace(folder / name)
    wanted = load_manifest(manifest, {"holdout": 0.5, "folds": 0})
    write_shards(workspace, replace(wanted, image={**wanted.image, "size": SIZE}, thumbnails=0))
    found = [trained(workspace, ILTrainConfig(name="found", model="strided_cnn", threads=1))]
    for rate in RATES:
        for steps in LENGTHS:
            config = ILTrainConfig(
                name=f"{steps}-{rate}",
                model="strided_cnn",
                schedule="linear",
                steps=steps,
                learning_rate=rate,
                threads=1,
            )
            found.append(trained(workspace, config))
    return {"case": name, "found": found[0], "grid": found[1:]}


def trained(workspace: Workspace, config: ILTrainConfig) -> dict[str, Any]:
    (model,) = train_il(workspace, config).metadata.models
    best = min(model.evaluations, key=lambda each: each.validation_loss)
    return {
        "learning_rate": config.learning_rate,
        "steps": model.evaluations[-1].step,
        "samples": model.trained_samples,
        "best_step": best.step,
        "validation_loss": best.validation_loss,
        "validation_accuracy": best.validation_accuracy,
        "cpu_seconds": il_costs(workspace, config.resolved_name)["cpu_seconds"]["il_train"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", required=True, metavar="NAME=MANIFEST")
    parser.add_argument("--workspaces", default="workspaces/il_grid", help="where to work; can be continued")
    parser.add_argument("--output", required=True, help="JSON file for the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    named = [case.partition("=") for case in arguments.case]
    cases = [run_case(name, manifest, Path(arguments.workspaces)) for name, _, manifest in named]
    found = {"benchmark": "il_grid", "machine": machine(), "model": "strided_cnn", "cases": cases}
    Path(arguments.output).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
