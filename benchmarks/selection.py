"""What selection costs and gains until a target accuracy: uniform sampling, the IL filter, RHO-LOSS, and `auto`.

    python benchmarks/selection.py --mnist MNIST --cifar10 CIFAR --output benchmarks/results/selection.json

MNIST is a folder that `torchvision.datasets.MNIST(root=MNIST)` opens; CIFAR holds images/ and a labels.csv with the
columns path, class and split (train, test). On MNIST a 2x512 MLP, clean, with 10% and 40% uniformly wrong labels, and
with 10% on a fifth of the images, each five times over; on CIFAR-10 a small BatchNorm CNN with 10% and 40%. n_b 32 of
n_B 320, AdamW at PyTorch's defaults and a constant rate, evaluated on 2,000 test images every 10 steps (CIFAR-10: 25).
One thread, so that CPU-seconds are what an unshared core would take; all costs charged, a tenth of the IL model's (the
whole of it beside), but for making the shards and their raw thumbnails. The IL model: a small MLP on MNIST, on a
tenth of the training images (five times over: on 30%, one pass), a LeNet-5 on CIFAR-10, on half of them.

Five seeds on MNIST, where runs are short and scatter more, three on CIFAR-10. Variants run in turn, seed by seed. Takes
three hours of one core; finished runs are taken up again.
"""

import argparse
import csv
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from PIL import Image

from rhostream.loaders import Workspace
from rhostream.pipeline.comparison.comparison import compare
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.config.manifest import Manifest, Noise, load_manifest
from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.shards.write import write_shards
from rhostream.pipeline.thumbnails.write import write_thumbnails

MANIFESTS = Path(__file__).resolve().parents[1] / "data_manifests"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A corpus, a target, the number of seeds, and each variant's budget of steps."""

    name: str
    corpus: str
    noise: float
    target: float
    model: str
    il_model: str
    holdout: float
    evaluate_every: int
    evaluate_at_most: int
    seeds: int
    steps: dict[str, int]


def budgets(uniform: int, large: int, filtered: int, rho: int, shared: int, auto: int) -> dict[str, int]:
    return {
        "uniform": uniform,
        "uniform:batch_size=128": large,
        "uniform:prefilter=1": filtered,
        "uniform:batch_size=128:prefilter=1": large,
        "rho_loss": rho,
        "rho_loss:share=0.25:prefilter=1": shared,
        "auto": auto,
    }


MNIST: dict[str, Any] = {
    "model": "mlp",
    "il_model": "small_mlp",
    "holdout": 0.1,
    "evaluate_every": 10,
    "evaluate_at_most": 2000,
    "seeds": 5,
}
CIFAR: dict[str, Any] = {
    "corpus": "cifar10",
    "model": "bn_cnn",
    "il_model": "lenet5",
    "holdout": 0.5,
    "evaluate_every": 25,
    "evaluate_at_most": 2000,
    "seeds": 3,
}
CASES = (
    Case(
        name="mnist-clean",
        corpus="mnist",
        noise=0.0,
        target=0.96,
        steps=budgets(1200, 560, 1600, 450, 675, 500),
        **MNIST,
    ),
    Case(
        name="mnist-10", corpus="mnist", noise=0.1, target=0.95, steps=budgets(1200, 400, 1200, 350, 525, 450), **MNIST
    ),
    Case(
        name="mnist-40", corpus="mnist", noise=0.4, target=0.93, steps=budgets(1200, 350, 800, 300, 450, 350), **MNIST
    ),
    Case(
        name="mnist-5x",
        corpus="mnist5x",
        noise=0.1,
        target=0.94,
        steps=budgets(1200, 350, 800, 300, 450, 400),
        **(MNIST | {"holdout": 0.3}),
    ),
    Case(name="cifar10-10", noise=0.1, target=0.55, steps=budgets(1600, 500, 1400, 750, 1125, 1500), **CIFAR),
    Case(name="cifar10-40", noise=0.4, target=0.50, steps=budgets(1800, 500, 1000, 1000, 750, 900), **CIFAR),
)


def five_times(root: str, folder: Path) -> str:
    """A fifth of MNIST's training images, each five times, with noise drawn once an image: a table and its files."""
    import torchvision

    if (folder / "labels.csv").exists():
        return str(folder)
    random = np.random.default_rng(1)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for split, of in (
        ("train", torchvision.datasets.MNIST(root, train=True)),
        ("test", torchvision.datasets.MNIST(root, train=False)),
    ):
        chosen = random.permutation(len(of))[:12_000] if split == "train" else np.arange(len(of))
        for number in chosen.tolist():
            label = given = int(of.targets[number])
            if split == "train" and random.random() < 0.1:
                given = int((label + random.integers(1, 10)) % 10)
            first = folder / "images" / f"{split}-{number}-0.png"
            Image.fromarray(of.data[number].numpy()).save(first)
            rows.append([f"images/{first.name}", given, label, split])
            for copy in range(1, 5 if split == "train" else 1):
                name = f"{split}-{number}-{copy}.png"
                (folder / "images" / name).unlink(missing_ok=True)
                os.link(first, folder / "images" / name)
                rows.append([f"images/{name}", given, label, split])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "clean_label", "split"], *rows])
    return str(folder)


def manifest_of(case: Case, roots: dict[str, str], folder: Path) -> Manifest:
    if case.corpus == "mnist":
        manifest = load_manifest(str(MANIFESTS / "mnist.toml"), {"root": roots["mnist"], "holdout": case.holdout})
    else:
        root = roots[case.corpus] if case.corpus == "cifar10" else five_times(roots["mnist"], folder / "mnist5x")
        like = load_manifest(str(MANIFESTS / ("cifar10.toml" if case.corpus == "cifar10" else "mnist.toml")), {})
        options = {"split_column": "split", "label_column": "class" if case.corpus == "cifar10" else "label"}
        classes = () if case.corpus == "cifar10" else tuple(str(digit) for digit in range(10))
        manifest = replace(like, format="table", root=root, holdout=case.holdout, options=options, classes=classes)
    noisy = case.noise and case.corpus != "mnist5x"
    size = manifest.image["size"]
    return replace(
        manifest,
        thumbnails=size,
        thumbnail_format="raw",
        noise=Noise(kind="uniform", rate=case.noise, seed=1) if noisy else None,
    )


def run_case(case: Case, roots: dict[str, str], folder: Path, say: Callable[[str], None]) -> Any:
    workspace = Workspace(folder / case.name)
    say(f"{case.name}: shards")
    manifest = manifest_of(case, roots, folder)
    write_shards(workspace, manifest)
    spec = ThumbnailsConfig(size=manifest.thumbnails, format=manifest.thumbnail_format, workers=0)
    write_thumbnails(workspace, spec)
    metadata = train_il(workspace, ILTrainConfig(model=case.il_model, threads=1)).metadata
    scores = score_il(workspace, ILScoreConfig(name=metadata.name, threads=1))
    config = TrainConfig(
        name=case.name,
        model=case.model,
        schedule="constant",
        average_weights=False,
        evaluate_every=case.evaluate_every,
        evaluate_at_most=case.evaluate_at_most,
        il_runs=10,
        threads=1,
        workers="0",
        tensorboard=False,
    )
    variants = [f"{variant}:steps={steps}" for variant, steps in case.steps.items()]
    found = compare(workspace, config, variants, seeds=list(range(case.seeds)), targets=[case.target]).to_dict()
    return {"case": case.name, "target": case.target, "il_accuracy_on_given_labels": scores.accuracy, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", required=True, help="folder that holds MNIST/raw")
    parser.add_argument("--cifar10", required=True, help="folder with images/ and labels.csv")
    parser.add_argument("--workspaces", default="workspaces/selection", help="where to work; can be continued")
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    parser.add_argument("--seeds", type=int, help="how many; default: five on MNIST, three on CIFAR-10")
    parser.add_argument("--output", help="JSON file for the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    roots = {"mnist": arguments.mnist, "cifar10": arguments.cifar10}
    wanted = arguments.cases.split(",")
    if unknown := set(wanted).difference(case.name for case in CASES):
        parser.error(f"--cases: no {', '.join(sorted(unknown))}; there are {', '.join(case.name for case in CASES)}")
    results = []
    for case in CASES:
        if case.name in wanted:
            case = replace(case, seeds=arguments.seeds or case.seeds)
            results.append(run_case(case, roots, Path(arguments.workspaces), lambda text: print(text, flush=True)))
            summary(results[-1])
    if arguments.output:
        report = json.dumps({"benchmark": "selection", "machine": machine(), "results": results}, indent=1)
        Path(arguments.output).write_text(report + "\n")


def summary(result: Any) -> None:
    """One line a variant: medians to the target."""
    print(f"{result['case']}, to {result['target']:.0%}: steps, CPU-seconds, with the whole IL model, TFLOPs")
    for variant in result["variants"]:
        (reached,) = variant["reached"]
        figures = [reached[name]["median"] for name in ("steps", "cpu_seconds", "cpu_seconds_whole_il", "flops")]
        known = f"{reached['steps']['known']} of {reached['steps']['of']}"
        shown = ["never" if figure is None else f"{figure:.1f}" for figure in figures[:3]]
        flops = "never" if figures[3] is None else f"{figures[3] / 1e12:.3f}"
        print(f"  {variant['variant']:45s} {shown[0]:>8} {shown[1]:>8} {shown[2]:>8} {flops:>8}  reached by {known}")


if __name__ == "__main__":
    main()
