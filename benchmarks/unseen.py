"""Steps to the accuracy that uniform sampling reaches late, on corpora that no default was chosen on.

    python benchmarks/unseen.py --case types-40=types-40.toml --case types=types.toml --output unseen.json
    python benchmarks/unseen.py --case types-40=types-40.toml --model resnet18 --output unseen-resnet18.json

A case is a name and a manifest; its corpus is split into two folds, as the manifests of `rho init` do, so that every
sample trains and has an irreducible loss from a model that never saw it. A small BatchNorm CNN on 32 pixels, n_b 32,
AdamW at PyTorch's defaults, a constant rate and the average of the weights, evaluated every 50 steps; strided_cnn at
its own length is the IL model. `rho_loss` chooses from 320 candidates as in the paper, `learnable` from 128, as the
manifests do. The target is 99% of the mean of uniform sampling's four best evaluations, over all seeds. `replay` trains
another model on what the small CNN's `learnable` has chosen, whose scoring it does not pay for. What `rho plan`
foretells for the steps that uniform sampling took is kept beside what came of it. One thread each; finished runs are
taken up again.

`right labels alone` is uniform sampling of what is labeled rightly, by the truth.

The corpora are those of benchmarks/unseen_corpora.py; `-40` are those with 40% of the labels wrong. On `colors-40` and
`subcategories-40` nothing was chosen, but that cross-fitting was seen to lower the loss of the last; on `wearers-40`,
how much an IL model has to explain. Two folds with cross-fitting were chosen on `types-40` and `emoji-40`, from a tenth
as the holdout, two folds and five, each with and without; so was strided_cnn, from some fifteen small networks, and the
constant rate with an average of the weights, in place of a cosine schedule or the last weights. Takes a quarter of an
hour a case on one core.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from machine import machine

from rhostream.loaders import Workspace
from rhostream.loaders.index import CorpusMetadata, ShardRows, read_shard_rows
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.config.manifest import load_manifest
from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.forecast import forecast_selections
from rhostream.pipeline.il.metadata import il_costs
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.shards.write import write_shards
from rhostream.pipeline.thumbnails.write import write_thumbnails
from rhostream.pipeline.training.loop import train

SIZE: Final = 32
VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "uniform": {"select": "uniform", "steps": 1200},
    "uniform, n_b 128": {"select": "uniform", "batch_size": 128, "steps": 500},
    "IL filter": {"select": "uniform", "prefilter": "auto", "steps": 600},
    "IL filter, n_b 128": {"select": "uniform", "batch_size": 128, "prefilter": "auto", "steps": 250},
    "rho_loss": {"select": "rho_loss", "super_batch_size": 320, "steps": 450},
    "learnable": {"select": "learnable", "super_batch_size": 128, "steps": 800},
    "learnable, scored in bfloat16": {
        "select": "learnable",
        "super_batch_size": 128,
        "steps": 600,
        "score_precision": "bfloat16",
    },
    "auto": {"select": "auto", "steps": 800},
    "replay": {"replay": "bn_cnn-learnable-0"},
    # By the truth, which nobody has, at no cost: no filter by an IL model leaves out more wrong labels.
    "right labels alone": {"select": "uniform", "prefilter": 1.0, "steps": 600},
}
#: What `rho plan` calls them.
FORESEEN: Final = {
    "uniform": "uniform@32",
    "uniform, n_b 128": "uniform@128",
    "IL filter": "filter@32",
    "IL filter, n_b 128": "filter@128",
    "learnable, scored in bfloat16": "learnable@32/0.25",
}


def run_case(
    name: str, manifest: str, folder: Path, seeds: int, repeated: list[str], folds: int, model: str, variants: list[str]
) -> dict[str, Any]:
    workspace = prepared(name, manifest, folder, folds)
    metadata = train_il(workspace, ILTrainConfig(threads=1)).metadata
    scores = score_il(workspace, ILScoreConfig(name=metadata.name, threads=1))
    common = TrainConfig(model=model, evaluate_every=50, evaluate_at_most=4000, threads=1, workers="0")
    found: dict[str, list[list[dict[str, Any]]]] = {}
    truth = write_truth(workspace, folder / f"{name}-truth.parquet")
    for seed in range(seeds):
        for variant in variants if model != "bn_cnn" else [each for each in variants if each != "replay"]:
            if seed and variant not in repeated:
                continue
            run = train(
                workspace,
                replace(
                    common,
                    name=f"{model}-{'-'.join(variant.split(', '))}-{seed}".replace(" ", "_"),
                    seed=seed,
                    tensorboard=False,
                    il=str(truth) if variant == "right labels alone" else "",
                    **VARIANTS[variant],
                ),
            )
            found.setdefault(variant, []).append(run.metrics)
    outcome = judged(found)
    taken = [seed["steps_to_target"] for seed in outcome["variants"][0]["seeds"] if seed["steps_to_target"]]
    planned = replace(common, steps=round(float(np.mean(taken))), super_batch_size=128)
    il = {
        "cpu_seconds": sum(il_costs(workspace, metadata.name)["cpu_seconds"].values()),
        "explained": scores.quality and scores.quality.explained,
        "cross_fit": [model.cross_fit and asdict(model.cross_fit) for model in metadata.models],
    }
    return {"case": name, "il": il, "foretold": foretold(workspace, planned), **outcome}


def prepared(name: str, manifest: str, folder: Path, folds: int) -> Workspace:
    """A workspace of the case, with images and raw thumbnails of `SIZE` pixels; 0 folds for a tenth as the holdout."""
    workspace = Workspace(folder / name)
    wanted = load_manifest(manifest, {"folds": folds} if folds else {"holdout": 0.1})
    write_shards(
        workspace,
        replace(wanted, image={**wanted.image, "size": SIZE}, thumbnails=SIZE, thumbnail_format="raw"),
    )
    write_thumbnails(workspace, ThumbnailsConfig(size=SIZE, format="raw", workers=0))
    return workspace


def rows_with_truth(workspace: Workspace) -> tuple[list[ShardRows], npt.NDArray[np.int32]]:
    """The rows of the training shards, and their true labels one after another."""
    corpus = CorpusMetadata.read(workspace)
    rows = [read_shard_rows(workspace, shard, ("clean_label",)) for shard in corpus.split("train")]
    return rows, np.concatenate([part.extra["clean_label"] for part in rows]).astype(np.int32)


def write_truth(workspace: Workspace, file: Path) -> Path:
    """An IL table by the true labels: no loss where the label is right, as large a one as may be where it is not.

    One that is there stays: runs go on under the very table that they began with.
    """
    if file.exists():
        return file
    rows, true = rows_with_truth(workspace)
    wrong = np.concatenate([part.labels for part in rows]) != true
    keys = pa.chunked_array([part.keys for part in rows])
    pq.write_table(pa.table({"key": keys, "il": np.where(wrong, 100.0, 0.0), "predicted": true}), file)
    return file


def foretold(workspace: Workspace, config: TrainConfig) -> dict[str, Any]:
    """Of each variant the steps and CPU-seconds that `rho plan` foretells, and the one that it would take."""
    plan = forecast_selections(workspace, config)
    by_name = {each.name: each for each in plan.selections}
    expected = {variant: by_name[name] for variant, name in FORESEEN.items() if name in by_name}
    return {
        "best": plan.best.name,
        "variants": {variant: {"steps": each.steps, "cpu_seconds": each.cost} for variant, each in expected.items()},
    }


def judged(runs: dict[str, list[list[dict[str, Any]]]]) -> dict[str, Any]:
    """The target, and of each variant what its seeds took and chose.

    Args:
        runs: by variant, of each seed the lines of its metrics.
    """
    late = [sorted(line["test_accuracy"] for line in lines)[-4:] for lines in runs["uniform"]]
    target = 0.99 * float(np.mean(late))
    variants = []
    for variant, seeds in runs.items():
        outcomes = []
        for lines in seeds:
            there = next((line for line in lines if line["test_accuracy"] >= target), None)
            charged = [name for name in lines[0] if name.startswith("cpu_seconds_") and name != "cpu_seconds_evaluate"]
            outcomes.append(
                {
                    "steps": lines[-1]["step"],
                    "steps_to_target": there and there["step"],
                    "cpu_seconds_to_target": there and round(sum(there[name] for name in charged), 1),
                    "best_accuracy": max(line["test_accuracy"] for line in lines),
                    "selected_mislabeled": share(lines, "selected"),
                    "candidates_mislabeled": share(lines, "candidates"),
                }
            )
        variants.append({"variant": variant, "seeds": outcomes})
    return {"target": target, "variants": variants}


def share(lines: list[dict[str, Any]], of: str) -> float | None:
    """Mislabeled among the selected, or the candidates, of a whole run; None where no true label is known."""
    known = [line for line in lines if line.get(f"{of}_mislabeled") is not None]
    total = sum(line[of] for line in known)
    return sum(line[f"{of}_mislabeled"] * line[of] for line in known) / total if total else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", required=True, metavar="NAME=MANIFEST")
    parser.add_argument("--workspaces", default="workspaces/unseen", help="where to work; can be continued")
    parser.add_argument("--seeds", type=int, default=1, help="of --repeated; the others take one")
    usually = ["uniform", "IL filter", "learnable"]
    parser.add_argument("--repeated", nargs="+", choices=[*VARIANTS], default=usually, metavar="VARIANT")
    parser.add_argument("--folds", type=int, default=2, help="0: a tenth as the holdout")
    parser.add_argument("--model", default="bn_cnn", help="the target")
    parser.add_argument("--variants", nargs="+", choices=[*VARIANTS], default=[*VARIANTS], metavar="VARIANT")
    parser.add_argument("--output", required=True, help="JSON file for the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = []
    for case in arguments.case:
        name, _, manifest = case.partition("=")
        of_all = (arguments.seeds, arguments.repeated, arguments.folds, arguments.model, arguments.variants)
        cases.append(run_case(name, manifest, Path(arguments.workspaces), *of_all))
    common = {"model": arguments.model, "folds": arguments.folds}
    found = {"benchmark": "unseen", "machine": machine(), **common, "cases": cases}
    Path(arguments.output).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
