"""What scoring small thumbnails does to selection, against scoring the images that are trained on.

    OMP_NUM_THREADS=1 python benchmarks/thumbnails.py --clothing DIR --clothing1m DIR --output FILE

`clothing` is a folder of real photographs with labels.csv, `clothing1m` one in Clothing-1M's layout with 38% wrong
labels: 4,400 and 4,100 training images whose shorter side is 176 pixels. The target, a small CNN with BatchNorm, trains
on 128 pixels; the IL table is of two folds, at 64 pixels. "64-jpeg" scores thumbnails of 64 pixels as they are,
"64-jpeg enlarged" scales them up to 128 first; "scored ahead" has each super-batch scored by the model before its last
step.

Expected, after 150 steps: of the 32 selected of 320, scoring 128-pixel JPEG thumbnails has 95% to 96% in common with
full size, 96 pixels 67% (enlarged 84% to 85%), 64 pixels 42% to 56% (enlarged 70% to 73%), and they gather 100%, 91% to
92% (98%) and 65% to 83% (89% to 93%) of the reducible loss that full size does. Earlier in the run all are closer; raw
thumbnails differ from JPEG ones by a point or two. Steps to the target accuracy: full size 90 and 75, uniform sampling
195 and 180, thumbnails of every size 75 to 105. Scored ahead: 120 to 165, or not within 180: this costs more
than the small thumbnails do.

Estimated at 20 minutes on 2 idle cores; the results were measured in parts, on busy ones. Reduced: runs of 180 steps,
one seed (three for 64 pixels), only JPEG in the runs to the target. Accuracy is that of 713 and 496 images: 15 steps
more or less mean nothing.
"""

import argparse
import csv
import itertools
import json
import logging
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from machine import machine
from torch import nn
from torch.nn import functional

from rhostream.loaders.decode.read_options import ReadOptions
from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.loaders.index.thumbnails import ThumbnailFormat
from rhostream.loaders.storage.workspace import Workspace
from rhostream.loaders.stream.candidate_stream import CandidateStream
from rhostream.loaders.stream.super_batch import SuperBatch
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.config.manifest import Manifest
from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.models.evaluation import EvaluationSet
from rhostream.pipeline.models.registry import build_model
from rhostream.pipeline.shards.write import write_shards
from rhostream.pipeline.thumbnails.write import write_thumbnails
from rhostream.selection.scoring import ScoredCandidates, selection_function
from rhostream.selection.scoring.scorer import Scorer
from rhostream.selection.selector import OnlineSelector

IMAGE_SIZE, IL_SIZE = 128, 64  # pixels
BATCH, SUPER_BATCH = 32, 320  # n_b, n_B
MODEL = "bn_cnn"
POINTS, POINT_BATCHES, SEED = (10, 50, 150), 4, 0  # steps after which scorings are compared, on so many super-batches
STEPS, EVERY = {"rho_loss": 180, "uniform": 360}, 15  # of a run, and between its evaluations
TARGETS = {"clothing": 0.36, "clothing1m": 0.34}  # test accuracy
FORMATS: tuple[ThumbnailFormat, ...] = ("jpeg", "raw")
LABELS = (
    "T-Shirt",
    "Longsleeve",
    "Pants",
    "Shoes",
    "Shirt",
    "Dress",
    "Outwear",
    "Shorts",
    "Hat",
    "Skirt",
    "Polo",
    "Undershirt",
    "Blazer",
    "Hoodie",
    "Body",
    "Top",
    "Blouse",
)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How candidates are scored.

    Attributes:
        thumbnails: their name; None scores the images that are trained on.
        enlarged: the thumbnail is scaled up to the size that is trained on, and not scored at its own.
        ahead: a super-batch is scored while the images selected from the one before are read: by the model as it was
            before its last step.
    """

    thumbnails: str | None
    enlarged: bool = False
    ahead: bool = False

    @property
    def name(self) -> str:
        return (
            f"{self.thumbnails or 'full'}{' enlarged' if self.enlarged else ''}{' scored ahead' if self.ahead else ''}"
        )

    def stream(self, workspace: Workspace, seed: int) -> CandidateStream:
        stream = CandidateStream(
            workspace,
            il="il",
            super_batch_size=SUPER_BATCH,
            seed=seed,
            thumbnails=self.thumbnails,
            extra=("source",),
            read_options=ReadOptions(workers=0),
        )
        if self.enlarged:
            stream.scoring_spec = stream.spec
        return stream


def variants() -> list[Variant]:
    small = [f"{size}-{form}" for size in (64, 96) for form in FORMATS]
    return [
        Variant(thumbnails=None),
        *(Variant(thumbnails=f"128-{form}") for form in FORMATS),
        *(Variant(thumbnails=name, enlarged=enlarged) for enlarged in (False, True) for name in small),
    ]


TRAINED = (
    Variant(thumbnails=None),
    *(Variant(thumbnails=name) for name in ("128-jpeg", "96-jpeg", "64-jpeg")),
    Variant(thumbnails="64-jpeg", enlarged=True),
    *(Variant(thumbnails=name, ahead=True) for name in ("128-jpeg", "64-jpeg")),
)
SEEDS = {"64-jpeg": (0, 1, 2), "64-jpeg scored ahead": (0, 1, 2)}  # the cheapest runs; one seed for the others


def prepare(name: str, root: str, folder: Path) -> Workspace:
    """Shards with two folds, the six thumbnails, and an IL table of a model that sees 64 pixels."""
    manifest = Manifest(name=name, format="clothing1m", root=root, folds=2, image={"size": IMAGE_SIZE}, shard_size=1000)
    if name == "clothing":
        options = {"split_column": "small_split", "splits": {"validation": "test"}}
        manifest = replace(manifest, format="table", classes=LABELS, options=options)
    workspace = Workspace(folder / name)
    write_shards(workspace, manifest)
    for size in (64, 96, 128):
        for form in FORMATS:
            write_thumbnails(workspace, ThumbnailsConfig(size=size, format=form))
    schedule = ILTrainConfig()
    train_il(workspace, replace(schedule, name="il", model=MODEL, image_size=IL_SIZE, augmentation="shift_flip"))
    score_il(workspace, ILScoreConfig(name="il"))
    return workspace


def score(model: nn.Module, batch: SuperBatch) -> npt.NDArray[np.float32]:
    """Reducible loss of each candidate, float32 (n,), nats."""
    logits = Scorer(model).logits(batch.spec.normalize(batch.images))
    function = selection_function("rho_loss").score
    assert function is not None
    return function(ScoredCandidates(labels=batch.labels, il=batch.il, logits=logits)).numpy()


def agreement(
    full: list[npt.NDArray[np.float32]], other: list[npt.NDArray[np.float32]], wrong: list[npt.NDArray[np.bool_]]
) -> dict[str, float]:
    """How alike two scorings of the same super-batches are, and what the other one selects."""
    overlaps, ranks, wrongs, gained = [], [], [], []
    for a, b, mistaken in zip(full, other, wrong, strict=True):
        top_a, top_b = (np.argsort(-scores, kind="stable")[:BATCH] for scores in (a, b))
        overlaps.append(len(np.intersect1d(top_a, top_b)) / BATCH)
        ranks.append(float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1]))
        wrongs.append(float(mistaken[top_b].mean()))
        # Of the reducible loss that full-size scoring would pick, beyond that of a random choice.
        gained.append(float((a[top_b].mean() - a.mean()) / (a[top_a].mean() - a.mean())))
    values = {"overlap": overlaps, "rank_correlation": ranks, "loss_gained": gained}
    if any(mistaken.any() for mistaken in wrong):
        values["selected_mislabeled"] = wrongs
    return {name: round(statistics.mean(numbers), 3) for name, numbers in values.items()}


def training(
    workspace: Workspace, variant: Variant, *, seed: int, steps: int, select: str
) -> Iterator[tuple[int, nn.Module]]:
    """(step, model) after every gradient step on full-size images."""
    stream = variant.stream(workspace, seed)
    if select == "uniform":
        stream.super_batch_size = BATCH
    model = build_model(MODEL, len(stream.corpus.classes), stream.spec, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    selector = OnlineSelector(model, batch_size=BATCH, select=select, score_ahead=variant.ahead)
    model.train()
    while selector.step < steps:
        for batch in selector(stream):
            functional.cross_entropy(model(batch.images), batch.labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            yield selector.step, model
            if selector.step >= steps:
                return


def curve(
    workspace: Workspace,
    variant: Variant,
    *,
    seed: int,
    select: str = "rho_loss",
    watch: Callable[[int, nn.Module], None] | None = None,
) -> list[float]:
    """Test accuracy after every `EVERY` steps; what was measured before is kept in the workspace."""
    name = f"benchmark/{select} {variant.name} {seed}.json"
    if not workspace.exists(name):
        metadata = CorpusMetadata.read(workspace)
        evaluation = EvaluationSet(workspace, metadata.split("test"), metadata.image_spec())
        accuracies = []
        for step, model in training(workspace, variant, select=select, seed=seed, steps=STEPS[select]):
            if watch is not None:
                watch(step, model)
            if step % EVERY == 0:
                accuracies.append(round(evaluation.evaluate(model, torch.device("cpu")).accuracy, 4))
        workspace.write_json(name, accuracies)
    found: list[float] = workspace.read_json(name)
    return found


def overlaps(workspace: Workspace, mislabeled: list[str]) -> dict[str, Any]:
    """Agreement of every variant with full-size scoring at several points of a run that selects at full size."""
    kept = "benchmark/overlaps.json"
    if not workspace.exists(kept):
        candidates = {  # the same for all
            variant.name: list(itertools.islice(variant.stream(workspace, seed=1000), POINT_BATCHES))
            for variant in variants()
        }
        wrong = [np.isin(batch.extra["source"].astype(str), mislabeled) for batch in candidates["full"]]
        result: dict[str, Any] = {}

        def compare(step: int, model: nn.Module) -> None:
            if step in POINTS:
                scores = {name: [score(model, batch) for batch in batches] for name, batches in candidates.items()}
                result[f"step {step}"] = {
                    name: agreement(scores["full"], found, wrong) for name, found in scores.items()
                }

        workspace.remove(f"benchmark/rho_loss full {SEED}.json")
        curve(workspace, Variant(thumbnails=None), seed=SEED, watch=compare)
        workspace.write_json(kept, result)
    found: dict[str, Any] = workspace.read_json(kept)
    return found


def steps_to(accuracies: list[float], target: float) -> int | None:
    """The first step at which the mean of three evaluations in a row reaches the target; None where none does."""
    for number in range(2, len(accuracies)):
        if statistics.mean(accuracies[number - 2 : number + 1]) >= target:
            return EVERY * (number + 1)
    return None


def speeds(workspace: Workspace, target: float) -> dict[str, Any]:
    """Steps to the target accuracy, by how candidates are scored."""
    runs = [("uniform", "uniform", Variant(thumbnails=None)), *((each.name, "rho_loss", each) for each in TRAINED)]
    result: dict[str, Any] = {"target": target}
    for name, select, variant in runs:
        curves = [curve(workspace, variant, select=select, seed=seed) for seed in SEEDS.get(name, (SEED,))]
        result[name] = {
            "steps_to_target": [steps_to(accuracies, target) for accuracies in curves],
            "budget": STEPS[select],
            "mean_accuracy_of_180_steps": [round(statistics.mean(each[: 180 // EVERY]), 3) for each in curves],
        }
    return result


def wrong_labels(root: Path) -> list[str]:
    """Sources of the training samples with a wrong label, where the corpus comes with the truth."""
    truth = root / "truth.csv"
    if not truth.exists():
        return []
    with truth.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["noisy_label"]]
    return [row["key"] for row in rows if row["noisy_label"] != row["true_label"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for corpus in TARGETS:
        parser.add_argument(f"--{corpus}", type=Path, required=True, metavar="DIR", help="see above")
    parser.add_argument("--workspaces", default="workspaces/thumbnails", help="where to work; can be continued")
    parser.add_argument("--output", help="JSON file for the results")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # that the IL model sees another size is known
    results = {}
    for corpus, target in TARGETS.items():
        root = getattr(arguments, corpus)
        workspace = prepare(corpus, str(root), Path(arguments.workspaces))
        results[corpus] = {
            "selection": overlaps(workspace, wrong_labels(root)),
            "training": speeds(workspace, target),
        }
    report = json.dumps({"benchmark": "thumbnails", "machine": machine(), "results": results}, indent=1)
    print(report)
    if arguments.output:
        Path(arguments.output).write_text(report + "\n")


if __name__ == "__main__":
    main()
