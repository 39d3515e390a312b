"""The loader and the selector of this tree beside those of another one, such as an earlier commit, by turns.

    git worktree add ../before COMMIT    # and its packages into ../before/.venv
    python benchmarks/trees.py --before ../before --photographs DIR

Each measurement is a process of its own on one core, with the tree's own interpreter, benchmarks/loaders and workspace;
the trees take turns, and which is first changes from round to round. What counts is CPU time (`cpu_us`, of a candidate:
its median, and the ratio of the medians, before by now), which other processes disturb least. Loading is measured by
`benchmarks/loaders/measure.py`: photographs of 256 pixels whole, and thumbnails of 64. "selector": thumbnails as they
are, scored by a small CNN and chosen, 32 of 320, full images read. "scoring": the pass over 320 of them alone. Memory
that is freed stays with malloc, as `rho train` has it: else up to a quarter of the pass is faulting pages in anew, more
or fewer of them by where blocks happen to lie in a process, which hides what the trees differ in.

Writes `benchmarks/results/trees.json`. Takes about a minute a round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from machine import machine
from torch import nn

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "results" / "trees.json"
LOADING, CHOOSING = ("full", "64-jpeg", "64-raw"), ("selector", "scoring")
WARM = 5  # super-batches
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
#: What `keep_freed_memory` of the pipeline asks of glibc's malloc, in bytes.
MEMORY_KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=4, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 1000),
    )  # fmt: skip


def chosen(kind: str, tree: Path, folder: Path, seconds: float) -> dict[str, float]:
    """What `rhostream` of this interpreter takes; the stream is made as the tree's own benchmark makes it."""
    sys.path.insert(0, str(tree / "benchmarks/loaders"))
    from adapters.rhostream_stream import stream

    from rhostream.selection import OnlineSelector, Scorer

    torch.set_num_threads(1)
    model, candidates = network(), 0
    if kind == "scoring":
        scorer, images = Scorer(model), torch.randn(320, 3, 64, 64)

        def step() -> None:
            scorer.logits(images)
    else:
        selector, source = OnlineSelector(model, batch_size=32), stream(folder, "64-raw")
        batches = (batch for _ in iter(int, 1) for batch in selector(source))

        def step() -> None:
            next(batches)

    for _ in range(WARM):
        step()
    begin = time.process_time()
    while time.process_time() - begin < seconds:
        step()
        candidates += 320
    return {"cpu_us": (time.process_time() - begin) / candidates * 1e6}


def measured(kind: str, tree: Path, folder: Path, seconds: float) -> float:
    python = tree / ".venv/bin/python"
    if kind in LOADING:
        script = tree / "benchmarks/loaders/measure.py"
        arguments = ["rate", "rhostream_stream", kind, str(folder), "--workers", "0", "--seconds", str(seconds)]
    else:
        script = Path(__file__)
        arguments = ["--measure", kind, "--before", str(tree), "--folder", str(folder), "--seconds", str(seconds)]
    found: float = called(python, script, *arguments)["cpu_us"]
    return found


def called(python: Path, script: Path, *arguments: str) -> Any:
    command = ["taskset", "-c", "0", str(python), str(script), *arguments]
    environment = {**os.environ, **ONE_THREAD, **MEMORY_KEPT}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{script} {' '.join(arguments)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def commit_of(tree: Path) -> str:
    command = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def lines_of(tree: Path) -> dict[str, int]:
    """Lines of Python by folder, blank ones and comments included."""
    listed = subprocess.run(["git", "-C", str(tree), "ls-files", "*.py"], capture_output=True, text=True, check=True)
    lines: dict[str, int] = {}
    for name in listed.stdout.splitlines():
        folder = name.split("/")[0]
        lines[folder] = lines.get(folder, 0) + len((tree / name).read_text().splitlines())
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="the other tree")
    parser.add_argument("--photographs", type=Path, help="a folder of class folders of JPEG files")
    parser.add_argument("--count", type=int, default=1920, help="photographs, a multiple of the 320 of a super-batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a measurement")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "rhostream-trees")
    parser.add_argument("--measure", choices=CHOOSING, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(chosen(options.measure, options.before, options.folder, options.seconds)))
        return
    trees = {"before": options.before.resolve(), "now": HERE.parent}
    images = options.folder / "images"
    if not images.exists():
        sys.path.insert(0, str(HERE / "loaders"))
        from corpus import make

        make(options.photographs, images, options.count)
    for name, tree in trees.items():
        if not (options.folder / name).exists():
            script = tree / "benchmarks/loaders/measure.py"
            prepare = ("prepare", "rhostream_stream", str(images), str(options.folder / name))
            called(tree / ".venv/bin/python", script, *prepare)
    found: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in trees} for kind in (*LOADING, *CHOOSING)}
    for number in range(options.rounds):
        for kind, by_tree in found.items():
            for name in sorted(trees, reverse=bool(number % 2)):
                by_tree[name].append(measured(kind, trees[name], options.folder / name, options.seconds))
            print(number, kind, {name: round(values[-1], 2) for name, values in by_tree.items()}, file=sys.stderr)
    medians = {kind: {name: statistics.median(by_tree[name]) for name in trees} for kind, by_tree in found.items()}
    result = {
        "benchmark": "trees",
        "machine": machine(),
        "commits": {name: commit_of(tree) for name, tree in trees.items()},
        "rounds": options.rounds,
        "lines": {name: lines_of(tree) for name, tree in trees.items()},
        "cpu_us": medians,
        "ratio": {kind: by_tree["before"] / by_tree["now"] for kind, by_tree in medians.items()},
        "measured": found,
    }
    OUTPUT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["ratio"], indent=1))


if __name__ == "__main__":
    main()
