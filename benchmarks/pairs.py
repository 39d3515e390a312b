"""What selecting image-text pairs gains and costs where many captions are wrong, alone and jointly chosen.

    python ../shared/data/pairs/unpack_pairs.py fashion PAIRS --mismatched 0.4
    python benchmarks/pairs.py PAIRS

PAIRS holds tars of product photographs and their titles: `train-*` (31,645 pairs, 40% of the captions another one's, of
another color or saying nothing), `reference-*` (5,081, true: the holdout), `test-*` (1,579, true), and truth.csv, which
only this script reads. Learner and reference are small_clip both (1.9M parameters, 32 pixels), of the same --loss; the
other loss wants another workspace and another output, and so does another learner. A ViT-S on a GPU, which nobody has
run yet, is `--device cuda --size 224 --model open_clip/FOLDER`, FOLDER with a ViT-S's open_clip_config.json.
Uniform sampling has a cosine schedule over its own budget; so has every selection over its own, shorter one. Evaluated
on all test pairs; the target is the recall@10 (mean of both ways) that uniform ends with, by the seed where that is
lowest.

Of each run: steps, samples seen (candidates that were scored or, by uniform sampling, trained on), samples trained on,
seconds, CPU-seconds and FLOPs until the target and over the whole run, a tenth of the reference model charged; what the
whole run's went to; the share of wrong captions among the selected in the first third and over the whole run; and of
the reference table, how well it tells wrong captions from true ones. `drrho` leaves nothing out, and weights. The
number of the others is the share of candidates left out. `small` rows score thumbnails of 16 pixels (Flexi-JEST's
saving), `smallest` ones of 8, a tenth of whose making is charged, too; `flexi` rows train half of each batch on them,
`flexi quarter` a quarter. The twin (ActiveCLIP's, --proxy) is a tiny_clip that is trained along and scores against a
tiny_clip reference, which is charged in the place of the other.

One reference model for all seeds of the learner and its order; one thread. Finished runs of the workspace are taken up
again, what the output holds of other variants and seeds is kept, and it is written after each run. Expected: the tables
of docs/pairs.md. Two CPU-minutes a run, and six for each reference model.
"""

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from machine import machine

from rhostream.loaders import Workspace
from rhostream.pipeline.config import ILScoreConfig, ILTrainConfig, Manifest, ThumbnailsConfig, TrainConfig
from rhostream.pipeline.il import ILMetadata, score_il, train_il
from rhostream.pipeline.shards import write_shards
from rhostream.pipeline.sql import query
from rhostream.pipeline.thumbnails import write_thumbnails
from rhostream.pipeline.training import Run, train
from rhostream.selection.policies import RuleName

OUTPUT = Path(__file__).parent / "results" / "pairs.json"
SMALL: Final = 16  # pixels of the thumbnails
SMALLEST: Final = 8
IL_RUNS: Final = 10  # among which the reference model and the thumbnails are shared


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How a run selects.

    Attributes:
        ratio: candidates for each sample trained on.
        share: of uniform's steps.
        thumbnails: pixels of those that are scored; 0 for full images.
        mixed: share of each batch that is trained on these thumbnails.
        twin: a model of the reference's architecture scores in the learner's place.
    """

    select: str
    ratio: float = 1
    share: float = 1.0
    thumbnails: int = 0
    mixed: float = 0.0
    rule: RuleName = "default"
    twin: bool = False

    @property
    def reference(self) -> str:
        return "tiny_clip" if self.twin else "small_clip"


VARIANTS: Final[dict[str, Variant]] = {
    "uniform": Variant(select="uniform"),
    "drrho": Variant(select="drrho"),
    "learnability 0.5": Variant(select="learnability", ratio=2, share=0.6),
    "learnability 0.5 gumbel": Variant(select="learnability", ratio=2, share=0.6, rule="gumbel"),
    "learnability 0.5 twin": Variant(select="learnability", ratio=2, share=0.6, twin=True),
    "easy_reference 0.5": Variant(select="easy_reference", ratio=2, share=0.6),
    "hard_learner 0.5": Variant(select="hard_learner", ratio=2, share=0.6),
    "jest 0.5": Variant(select="jest", ratio=2, share=0.6),
    "jest 0.5 small": Variant(select="jest", ratio=2, share=0.6, thumbnails=SMALL),
    "jest 0.5 smallest": Variant(select="jest", ratio=2, share=0.6, thumbnails=SMALLEST),
    "jest 0.5 flexi": Variant(select="jest", ratio=2, share=0.6, thumbnails=SMALL, mixed=0.5),
    "jest 0.5 flexi quarter": Variant(select="jest", ratio=2, share=0.6, thumbnails=SMALL, mixed=0.25),
    "learnability 0.8": Variant(select="learnability", ratio=5, share=0.6),
    "easy_reference 0.8": Variant(select="easy_reference", ratio=5, share=0.6),
    "jest 0.8": Variant(select="jest", ratio=5, share=0.6),
    "jest 0.8 short": Variant(select="jest", ratio=5, share=0.4),
    "jest 0.8 small": Variant(select="jest", ratio=5, share=0.6, thumbnails=SMALL),
    "jest 0.8 smallest": Variant(select="jest", ratio=5, share=0.6, thumbnails=SMALLEST),
    "jest 0.9 smallest": Variant(select="jest", ratio=10, share=0.6, thumbnails=SMALLEST),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--workspace", type=Path, help="kept, to go on from; default: a temporary one")
    parser.add_argument("--loss", choices=["softmax", "sigmoid"], default="softmax", help="of learner and reference")
    parser.add_argument("--model", default="small_clip", metavar="MODEL", help="the learner, or open_clip/FOLDER")
    parser.add_argument("--size", type=int, default=32, help="of the images, pixels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=300, help="of uniform sampling")
    parser.add_argument("--reference-steps", type=int, default=0, help="at most; default: until recall rises no more")
    parser.add_argument("--only", nargs="+", choices=[*VARIANTS], default=[*VARIANTS], metavar="VARIANT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("RHO_CACHE", f"{folder}/cache")
        workspace = Workspace(asked.workspace or f"{folder}/workspace")
        truth = truth_of(asked.pairs / "truth.csv")
        before = json.loads(asked.output.read_text()) if asked.output.exists() else {"runs": []}
        settings = {name: getattr(asked, name) for name in ("loss", "batch_size", "model", "size", "device")}
        if other := {name: before[name] for name, value in settings.items() if before.get(name, value) != value}:
            parser.error(f"{asked.output} holds runs of {other}, not of {settings}: name another --output")
        spent = prepare(workspace, asked, before.get("thumbnails_cpu_seconds", {}))
        of_reference = reference(workspace, truth)
        runs = {(run["variant"], run["seed"]): run for run in before["runs"]}
        for seed in asked.seeds:
            for name in asked.only:
                run = run_of(workspace, name, seed, asked)
                charged = spent.get(str(VARIANTS[name].thumbnails), 0.0) / IL_RUNS
                runs[name, seed] = {"variant": name, "seed": seed, **outcome(workspace, run, truth, charged)}
                print({name: value for name, value in runs[name, seed].items() if name != "curve"}, flush=True)
                ends = [run["end"]["recall"] for (name, _), run in runs.items() if name == "uniform"]
                target = min(ends, default=0.0)
                for run in runs.values():
                    run["reached"] = next((point for point in run["curve"] if (point["recall"] or 0.0) >= target), None)
                found = {
                    "benchmark": "pairs",
                    "machine": machine(),
                    **settings,
                    "thumbnails_cpu_seconds": spent,
                    "wrong": sum(map(bool, truth.values())) / len(truth),
                    "reference": of_reference,
                    "target": target,
                    "runs": sorted(runs.values(), key=lambda run: ([*VARIANTS].index(run["variant"]), run["seed"])),
                }
                asked.output.write_text(json.dumps(found, indent=1) + "\n")


def truth_of(file: Path) -> dict[str, str]:
    """By key what is wrong with the caption, "" where nothing is."""
    with file.open(encoding="utf-8", newline="") as stream:
        return {row["key"]: row["noise"] for row in csv.DictReader(stream)}


def prepare(workspace: Workspace, asked: argparse.Namespace, measured: Mapping[str, float]) -> dict[str, float]:
    """Shards, thumbnails, reference models and their tables, as the variants need them; what is there is kept.

    Args:
        measured: what making thumbnails took, by their pixels; what is not here is made anew, and measured.

    Returns:
        The same, with what was made, CPU-seconds.
    """
    manifest = Manifest(
        name="pairs",
        format="webdataset",
        task="pairs",
        root=str(asked.pairs),
        holdout=0.0,
        options={"text": "txt", "splits": {"reference-*": "holdout", "test-*": "test"}},
        image={"size": asked.size},
        text={"tokenizer": "words", "length": 16},
    )
    write_shards(workspace, manifest, workers=0)
    variants, spent = [VARIANTS[name] for name in asked.only], dict(measured)
    for size in sorted({variant.thumbnails for variant in variants} - {0}):
        begin = time.process_time()
        thumbnails = ThumbnailsConfig(size=size, format="raw", workers=0, overwrite=str(size) not in spent)
        write_thumbnails(workspace, thumbnails)
        spent.setdefault(str(size), time.process_time() - begin)
    for model in sorted({"small_clip", *(variant.reference for variant in variants)}):
        config = ILTrainConfig(
            model=model,
            contrastive_loss=asked.loss,
            batch_size=asked.batch_size,
            steps=asked.reference_steps,
            device=asked.device,
            threads=1,
        )
        train_il(workspace, config)
        score_il(workspace, ILScoreConfig(name=model, device=asked.device, threads=1))
    return spent


def reference(workspace: Workspace, truth: Mapping[str, str]) -> dict[str, Any]:
    """How its reference model was trained, and how well it finds wrong captions: those that it ranks lowest."""
    model = ILMetadata.read(workspace, "small_clip").models[0]
    rows = query(
        workspace,
        "SELECT key FROM il JOIN samples USING (key) WHERE split = 'train' AND il_model = 'small_clip' "
        "ORDER BY (rank - 1) / greatest(compared, 1) DESC, similarity, key",
    )["key"].to_pylist()
    noise = [truth[key] for key in rows]
    wrong = sum(map(bool, noise))
    kinds = sorted({each for each in noise if each})
    return {
        "steps": model.best_step,
        "recall": model.best.validation_accuracy,
        "pairs": len(rows),
        "found": [_found(noise, wrong, count) for count in (wrong // 4, wrong // 2, wrong)],
        "kinds": {kind: _share(noise[:wrong], kind, noise.count(kind)) for kind in kinds},
    }


def _found(noise: Sequence[str], wrong: int, count: int) -> dict[str, float]:
    hits = sum(map(bool, noise[:count]))
    return {"listed": count, "precision": hits / count, "recall": hits / wrong}


def _share(noise: Sequence[str], kind: str, of: int) -> float:
    return noise.count(kind) / of


def run_of(workspace: Workspace, name: str, seed: int, asked: argparse.Namespace) -> Run:
    variant = VARIANTS[name]
    steps = round(variant.share * asked.steps)
    config = TrainConfig(
        name=f"{name.replace(' ', '-')}-{seed}",
        select=variant.select,
        rule=variant.rule,
        proxy=variant.twin,
        il=variant.reference,
        model=asked.model,
        contrastive_loss=asked.loss,
        batch_size=asked.batch_size,
        super_batch_size=round(variant.ratio * asked.batch_size),
        steps=steps,
        thumbnails=f"{variant.thumbnails}-raw" if variant.thumbnails else "none",
        mixed_resolution=variant.mixed,
        schedule="cosine",
        average_weights=False,
        warmup=0.05,
        evaluate_every=max(1, asked.steps // 20),
        il_runs=IL_RUNS,
        seed=seed,
        device=asked.device,
        threads=1,
        workers="0",
        tensorboard=False,
    )
    return train(workspace, config)


def quality_of(metrics: Sequence[Mapping[str, Any]]) -> list[float]:
    return [line["test_accuracy"] for line in metrics if line["test_accuracy"] is not None]


def outcome(workspace: Workspace, run: Run, truth: Mapping[str, str], thumbnails: float) -> dict[str, Any]:
    """What a run came to, and its curve, this much of the thumbnails charged (CPU-seconds of one thread)."""
    curve = []
    seen = trained = 0
    for line in run.metrics:
        seen, trained = seen + line["candidates"], trained + line["selected"]
        costs = {unit: sum(line[f"{unit}_{cost}"] or 0.0 for cost in COSTS) for unit in UNITS}
        costs = {unit: spent + thumbnails * (unit != "flops") for unit, spent in costs.items()}
        point = {"step": line["step"], "seen": seen, "trained": trained, **costs, "recall": line["test_accuracy"]}
        curve.append(point)
    line = run.metrics[-1]
    last = line["step"]
    return {
        "end": curve[-1],
        "best": max(quality_of(run.metrics)),
        "spent": {cost: line[f"cpu_seconds_{cost}"] or 0.0 for cost in COSTS} | {"thumbnails": thumbnails},
        "wrong_first_third": _wrong(workspace, run.name, truth, last // 3),
        "wrong_selected": _wrong(workspace, run.name, truth, last),
        "curve": curve,
    }


COSTS: Final = ("load", "score", "train", "il_train", "il_score")
UNITS: Final = ("seconds", "cpu_seconds", "flops")


def _wrong(workspace: Workspace, run: str, truth: Mapping[str, str], until: int) -> float:
    sql = f"SELECT key FROM ledger WHERE run = '{run}' AND selected AND step <= {until}"
    keys = query(workspace, sql)["key"].to_pylist()
    return sum(bool(truth[key]) for key in keys) / len(keys)


if __name__ == "__main__":
    main()
