"""The tables and figures of the RHO-LOSS paper (arXiv 2206.07137) that MNIST and CIFAR-10 can show, run anew.

    python benchmarks/reproductions/run.py table2 figure3 --mnist MNIST --cifar10 CIFAR --jobs 2
    python benchmarks/reproductions/run.py table2 --setting full --mnist MNIST --cifar10 CIFAR --jobs 12

MNIST is a folder that `torchvision.datasets.MNIST(root=MNIST)` opens; CIFAR holds images/ and a labels.csv with the
columns path, class and split (train, test). The setting "reduced" trains a small BatchNorm CNN on CIFAR-10 and fits two
CPU cores; "full" trains the paper's ResNet-18 on a GPU. Both: n_b 32 of n_B 320, AdamW at PyTorch's defaults and a
constant rate, half of the training images the holdout, the IL model a LeNet.

Killed and started again it goes on. benchmarks/README.md puts the paper's figures beside ours, and says how long each
recipe takes. Results go to benchmarks/results/reproductions/<recipe>-<setting>.json.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import approximations
import torch
from lab import SETTINGS, Lab, longer, merged
from recipes import RECIPES, Row

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from machine import machine

RESULTS = Path(__file__).resolve().parents[1] / "results" / "reproductions"
TABLE1 = "table1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", choices=[TABLE1, *RECIPES, "all"], metavar="RECIPE", help="or all")
    parser.add_argument("--mnist", required=True, help="folder that holds MNIST/raw")
    parser.add_argument("--cifar10", required=True, help="folder with images/ and labels.csv")
    parser.add_argument("--setting", choices=SETTINGS, default="reduced")
    parser.add_argument("--steps", type=int, help="gradient steps of a run on CIFAR-10, in place of the setting's")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--workspaces", type=Path, default=Path("workspaces/reproductions"))
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    names = [TABLE1, *RECIPES] if "all" in arguments.recipes else arguments.recipes
    lab = Lab(
        folder=arguments.workspaces.absolute(),
        roots={"mnist": arguments.mnist, "cifar10": arguments.cifar10},
        setting=longer(SETTINGS[arguments.setting], arguments.steps),
        seeds=tuple(int(seed) for seed in arguments.seeds.split(",")),
        jobs=arguments.jobs,
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    wanted = {name: RECIPES[name] for name in names if name != TABLE1}
    results: dict[str, Any] = {}
    for study, result in lab.run(merged(study for recipe in wanted.values() for study in recipe.studies(lab.setting))):
        results[study.name] = result
        for name, recipe in list(wanted.items()):
            own = recipe.studies(lab.setting)
            if all(each.name in results for each in own):
                found = _of(own, results)
                minutes = (time.perf_counter() - begin) / 60  # since the start, other recipes' runs among it
                rows = recipe.rows(lab, found)
                write(arguments.output, name, lab, recipe.title, recipe.paper, rows, minutes=minutes, studies=found)
                del wanted[name]
    if TABLE1 in names:
        begin = time.perf_counter()
        rows = approximations.rows(arguments.mnist, lab.seeds, torch.device(lab.setting.device))
        minutes = (time.perf_counter() - begin) / 60
        write(arguments.output, TABLE1, lab, approximations.TITLE, approximations.PAPER, rows, minutes=minutes)


def _of(studies: Iterable[Any], results: dict[str, Any]) -> dict[str, Any]:
    """Results with the variants of each study alone: two recipes may share a study's runs."""
    return {
        study.name: results[study.name]
        | {"variants": [each for each in results[study.name]["variants"] if each["variant"] in study.variants]}
        for study in studies
    }


def write(folder: Path, name: str, lab: Lab, title: str, paper: str, rows: list[Row], **more: Any) -> None:
    """Print the table, and keep it as JSON."""
    print(f"\n{title} ({lab.setting.name})\nPaper: {paper}")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    texts = [columns, *([_text(column, row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(text) for text in column) for column in zip(*texts, strict=True)]
    for line in texts:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    report = {
        "benchmark": name,
        "title": title,
        "paper": paper,
        "machine": machine(lab.setting.device),
        "setting": asdict(lab.setting),
        "seeds": lab.seeds,
        "jobs": lab.jobs,
        "rows": rows,
        **more,
    }
    (folder / f"{name}-{lab.label}.json").write_text(json.dumps(report, indent=1) + "\n")


def _text(column: str, value: Any) -> str:
    if value is None:
        return "never" if column == "steps" else "-"
    return str(value)


if __name__ == "__main__":
    main()
