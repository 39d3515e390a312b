"""What the options of the scoring pass give: time of a pass over a super-batch, and how alike its scores are.

    python benchmarks/scoring.py --output benchmarks/results/scoring.json

The options are run in turn, round after round, so that a machine that is busy for a while is busy for all of them; what
is compiled is timed once it is. Takes some minutes on 2 cores.

`rank correlation`: Spearman's, between the losses of a pass with the options and those of the plain pass; 1 is the same
order. The model was trained for 60 steps on noisy textures before, whose classes it has begun to learn.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rhostream.loaders.view import View
from rhostream.pipeline.models import build_model
from rhostream.selection import Scorer, ScoringOptions

CANDIDATES, CLASSES, TRAINED = 320, 10, 60
MODELS = {"bn_cnn": 32, "resnet18": 64}  # with the side of its images, pixels


def options_for(side: int) -> dict[str, ScoringOptions]:
    return {
        "plain": ScoringOptions(),
        "bfloat16": ScoringOptions(precision="bfloat16"),
        "channels_last": ScoringOptions(channels_last=True),
        "channels_last, bfloat16": ScoringOptions(channels_last=True, precision="bfloat16"),
        "compile": ScoringOptions(compile=True),
        "compile, channels_last": ScoringOptions(compile=True, channels_last=True),
        "three quarters of the side": ScoringOptions(size=side * 3 // 4),
        "half of the side": ScoringOptions(size=side // 2),
    }


def blobs(count: int, side: int) -> tuple[Tensor, Tensor]:
    """Images of smooth textures, one per class, under noise; float32 (count, 3, side, side), int64 (count,)."""
    drawing = torch.Generator().manual_seed(0)
    coarse = torch.randn(CLASSES, 3, 6, 6, generator=drawing)
    textures = F.interpolate(coarse, size=(side, side), mode="bicubic")
    labels = torch.randint(0, CLASSES, (count,), generator=drawing)
    return textures[labels] + 2.0 * torch.randn(count, 3, side, side, generator=drawing), labels


def spearman(first: Tensor, second: Tensor) -> float:
    ranks = torch.stack([first.argsort().argsort(), second.argsort().argsort()]).double()
    return float(torch.corrcoef(ranks)[0, 1])


def trained(name: str, side: int) -> nn.Module:
    model = build_model(name, CLASSES, View(size=side), seed=0).train()
    optimizer = torch.optim.AdamW(model.parameters())
    images, labels = blobs(32 * TRAINED, side)
    for step in range(TRAINED):
        part = slice(32 * step, 32 * step + 32)
        F.cross_entropy(model(images[part]), labels[part]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def measure(name: str, side: int, rounds: int) -> dict[str, dict[str, float]]:
    model = trained(name, side)
    images, labels = blobs(CANDIDATES, side)
    scorers = {label: Scorer(model, options) for label, options in options_for(side).items()}
    first, losses = {}, {}
    for label, scorer in scorers.items():
        begin = time.perf_counter()
        losses[label] = F.cross_entropy(scorer.logits(images), labels, reduction="none")
        first[label] = time.perf_counter() - begin
    seconds: dict[str, list[float]] = {label: [] for label in scorers}
    for _ in range(rounds):
        for label, scorer in scorers.items():
            begin = time.perf_counter()
            scorer.logits(images)
            seconds[label].append(time.perf_counter() - begin)
    plain = statistics.median(seconds["plain"])
    return {
        label: {
            "milliseconds": round(1000 * statistics.median(times), 2),
            "lowest": round(1000 * min(times), 2),
            "highest": round(1000 * max(times), 2),
            "of the plain pass": round(statistics.median(times) / plain, 3),
            "first pass, seconds": round(first[label], 2),
            "rank correlation": round(spearman(losses[label], losses["plain"]), 4),
        }
        for label, times in seconds.items()
    }


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    told = cpuinfo.read_text() if cpuinfo.exists() else ""
    names = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "computes in bfloat16": any(flag in told for flag in ("avx512_bf16", "amx_bf16")),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"candidates": CANDIDATES, "models": {}}
    if arguments.output and arguments.output.exists():  # the models that were measured before stay
        result = json.loads(arguments.output.read_text())
    for name in arguments.models:
        print(f"{name} …", file=sys.stderr)
        options = measure(name, MODELS[name], arguments.rounds)
        result["models"][f"{name}, {MODELS[name]} px"] = {"machine": machine(), "rounds": arguments.rounds, **options}
        if arguments.output:
            arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
