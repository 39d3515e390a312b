"""What the options of the scoring pass give: time of a pass over a super-batch, and how alike its scores are.

    python benchmarks/scoring.py --output benchmarks/results/scoring.json
    python benchmarks/scoring.py --device cuda --output benchmarks/results/scoring-cuda.json

The options are run in turn, round after round, so that a machine that is busy for a while is busy for all of them; what
is compiled is timed once it is. `cpu` is the processor time of all threads, which other processes disturb less than the
time on the clock. Takes some minutes on 2 idle cores, a good part of them compiling (`--no-compile` leaves that out).

`rank correlation`: Spearman's, between the losses of a pass with the options and those of the plain pass; 1 is the same
order. The model was trained for 60 steps on noisy textures before, whose classes it has begun to learn.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import machine
from torch import Tensor, nn

from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.pipeline.models.device import choose_device, place
from rhostream.pipeline.models.registry import build_model
from rhostream.selection import Scorer, ScoringOptions

CANDIDATES, CLASSES, TRAINED = 320, 10, 60
MODELS = {"bn_cnn": 32, "resnet18_cifar": 32, "resnet18": 64}  # with the side of its images, pixels


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


def trained(name: str, side: int, device: torch.device) -> nn.Module:
    model = place(build_model(name, CLASSES, ImageSpec(size=side), seed=0), device).train()
    optimizer = torch.optim.AdamW(model.parameters())
    images, labels = (tensor.to(device) for tensor in blobs(32 * TRAINED, side))
    for step in range(TRAINED):
        part = slice(32 * step, 32 * step + 32)
        F.cross_entropy(model(images[part]), labels[part]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def measure(name: str, side: int, rounds: int, device: torch.device, *, compiled: bool) -> dict[str, dict[str, float]]:
    model = trained(name, side, device)
    images, labels = (tensor.to(device) for tensor in blobs(CANDIDATES, side))

    def logits(scorer: Scorer) -> Tensor:
        """Once they are there."""
        found = scorer.logits(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return found

    wanted = {label: options for label, options in options_for(side).items() if compiled or not options.compile}
    scorers = {label: Scorer(model, options) for label, options in wanted.items()}
    first, losses = {}, {}
    for label, scorer in scorers.items():
        begin = time.perf_counter()
        losses[label] = F.cross_entropy(logits(scorer), labels, reduction="none")
        first[label] = time.perf_counter() - begin
    wall: dict[str, list[float]] = {label: [] for label in scorers}
    cpu: dict[str, list[float]] = {label: [] for label in scorers}
    for _ in range(rounds):
        for label, scorer in scorers.items():
            begin, begin_cpu = time.perf_counter(), time.process_time()
            logits(scorer)
            cpu[label].append(time.process_time() - begin_cpu)
            wall[label].append(time.perf_counter() - begin)
    counted = wall if device.type == "cuda" else cpu
    plain = statistics.median(counted["plain"])
    return {
        label: {
            "cpu ms": round(1000 * statistics.median(cpu[label]), 1),
            "cpu ms, lowest": round(1000 * min(cpu[label]), 1),
            "cpu ms, highest": round(1000 * max(cpu[label]), 1),
            "of the plain pass": round(statistics.median(counted[label]) / plain, 3),
            "clock ms": round(1000 * statistics.median(wall[label]), 2),
            "first pass, s": round(first[label], 2),
            "rank correlation": round(spearman(losses[label], losses["plain"]), 4),
        }
        for label in scorers
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--device", type=choose_device, default="cpu")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"candidates": CANDIDATES, "models": {}}
    if arguments.output and arguments.output.exists():  # the models that were measured before stay
        result = json.loads(arguments.output.read_text())
    for name in arguments.models:
        print(f"{name} …", file=sys.stderr)
        options = measure(name, MODELS[name], arguments.rounds, arguments.device, compiled=not arguments.no_compile)
        result["models"][f"{name}, {MODELS[name]} px"] = {
            "machine": machine(arguments.device) | {"threads": torch.get_num_threads()},
            "rounds": arguments.rounds,
            **options,
        }
        if arguments.output:
            arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
