"""What IL models tell of the labels, and what they cost: the default beside others that are built in.

    python benchmarks/il_models.py --case types-40=types-40.toml --output benchmarks/results/il_models.json

A case is a name and a manifest whose corpus knows its true labels; it is split into two folds, as the manifests of
`rho init` do, and read at 32 pixels. Each model trains at its own length, with everything else at its default. Of the
training samples, each scored by a model that saw none of their labels: how much of the labels' entropy is explained,
how many true labels are predicted, how well losses tell wrong labels (area under the ROC curve), and what the filter
of `--prefilter auto` makes of them. CPU-seconds are those of the IL model and its table. One thread; finished models
are taken up again. Takes a minute a case of 7,200 photographs.

strided_cnn was chosen, from some fifteen small networks, on `types-40` and `emoji-40`.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from machine import machine
from unseen import prepared, rows_with_truth

from rhostream.loaders import Workspace
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.reference import open_il_table
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.il import il_costs, il_quality, score_il, train_il

FOLDS: Final = 2


def run_case(name: str, manifest: str, folder: Path, models: list[str]) -> dict[str, Any]:
    workspace = prepared(name, manifest, folder, FOLDS)
    return {"case": name, "models": [found(workspace, model) for model in models]}


def found(workspace: Workspace, model: str) -> dict[str, Any]:
    metadata = train_il(workspace, ILTrainConfig(model=model, threads=1)).metadata
    score_il(workspace, ILScoreConfig(name=metadata.name, threads=1))
    corpus = CorpusMetadata.read(workspace)
    quality = il_quality(workspace, corpus, metadata.name)
    assert quality is not None, "tables of IL models tell what their models predict"
    table = open_il_table(workspace, corpus, metadata.name)
    rows, true = rows_with_truth(workspace)
    joined = [table.join(part) for part in rows]
    wrong = np.concatenate([part.labels for part in rows]) != true
    classes = len(corpus.classes)
    out = np.concatenate(
        [quality.prefilter.rules_out(part, own.labels, classes) for own, part in zip(rows, joined, strict=True)]
    )
    return {
        "model": model,
        "samples": len(true),
        "parameters": metadata.parameters,
        "steps": [each.best_step for each in metadata.models],
        "cpu_seconds": sum(il_costs(workspace, metadata.name)["cpu_seconds"].values()),
        "explained": quality.explained,
        "true_labels_predicted": float((np.concatenate([part.predicted for part in joined]) == true).mean()),
        "area": area(np.concatenate([part.il for part in joined]), wrong),
        "wrong_left": float(wrong[~out].mean()),
        "right_lost": float(out[~wrong].mean()),
    }


def area(losses: npt.NDArray[np.float32], wrong: npt.NDArray[np.bool_]) -> float:
    """Under the ROC curve: the chance that a wrong label has a higher loss than a right one."""
    ranked = wrong[losses.argsort(kind="stable")]  # from the lowest loss to the highest
    right_below = np.cumsum(~ranked)[ranked]
    return float(right_below.mean() / (~wrong).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", required=True, metavar="NAME=MANIFEST")
    parser.add_argument("--models", nargs="+", default=["strided_cnn", "small_cnn"], metavar="MODEL")
    parser.add_argument("--workspaces", default="workspaces/il_models", help="where to work; can be continued")
    parser.add_argument("--output", required=True, help="JSON file for the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    named = [case.partition("=") for case in arguments.case]
    cases = [run_case(name, manifest, Path(arguments.workspaces), arguments.models) for name, _, manifest in named]
    result = {"benchmark": "il_models", "machine": machine(), "cases": cases}
    Path(arguments.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
