"""What the paper (arXiv 2206.07137) shows, and the runs that show it here."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lab import CORE_SET, Lab, Setting, Study

Row = dict[str, Any]

METHODS = (
    "uniform",
    "train_loss",
    "grad_norm",
    "grad_norm_is",
    f"uniform:core_set={CORE_SET}",
    "irreducible_loss",
    "rho_loss",
)
LABELS_FREE = ("bald", "entropy", "conditional_entropy", "loss_minus_conditional_entropy")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A table or figure.

    Attributes:
        paper: what it says there, in short.
        rows: makes the lines of its table from the results of its studies.
    """

    title: str
    paper: str
    studies: Callable[[Setting], list[Study]]
    rows: Callable[[Lab, dict[str, Any]], list[Row]]


def steps_to_target(lab: Lab, results: dict[str, Any]) -> list[Row]:
    """Median steps to each target, its ratio to uniform sampling's, and the final accuracy."""
    rows = []
    for name, result in results.items():
        baseline = _reached(result, "uniform")
        for variant in result["variants"]:
            reached = [each["steps"]["median"] for each in variant["reached"]]
            for target, steps, uniform in zip(result["targets"], reached, baseline, strict=True):
                rows.append(
                    {
                        "study": name,
                        "variant": variant["variant"],
                        "target": round(target, 4),
                        "steps": steps,
                        "ratio": round(steps / uniform, 2) if steps and uniform else None,
                        "final": round(variant["final_accuracy"]["median"], 4),
                    }
                )
    return rows


def _reached(result: dict[str, Any], variant: str) -> list[float | None]:
    (found,) = [each for each in result["variants"] if each["variant"] == variant]
    return [each["steps"]["median"] for each in found["reached"]]


def speed_up(lab: Lab, results: dict[str, Any]) -> list[Row]:
    """How many times fewer steps RHO-LOSS needs to the best accuracy that both reach."""
    rows = []
    for name, result in results.items():
        uniform, rho = _reached(result, "uniform")[-1], _reached(result, "rho_loss")[-1]
        rows.append(
            {
                "study": name,
                "target": round(result["targets"][-1], 4),
                "uniform": uniform,
                "rho_loss": rho,
                "speed-up": round(uniform / rho, 1) if uniform and rho else None,
            }
        )
    return rows


def properties(lab: Lab, results: dict[str, Any]) -> list[Row]:
    """Of all that was selected: wrong labels, classes of low relevance, already classified correctly."""
    rows = []
    for name, result in results.items():
        (study,) = [each for each in figure3(lab.setting) if each.name == name]
        for variant in result["variants"]:
            found = [_selected(lab, study, run["run"]) for run in variant["runs"]]
            shown = ["wrong" if study.corpus.endswith("noise") else "low relevance", "correct already"]
            rows.append(
                {"study": name, "variant": variant["variant"]}
                | {share: _mean([each[share] for each in found]) for share in shown}
            )
    return rows


def _selected(lab: Lab, study: Study, run: str) -> dict[str, float | None]:
    """Shares of what a run selected, over all its steps."""
    from rhostream.pipeline.sql.database import query

    workspace = lab.workspace(study.corpus)
    shares = query(
        workspace,
        "SELECT sum(selected_mislabeled * selected) / sum(selected) AS wrong, sum(selected_correct * selected) / "
        f"sum(selected) AS correct FROM metrics WHERE run = '{run}'",
    ).to_pylist()[0]
    found: dict[str, float | None] = {"wrong": shares["wrong"], "correct already": shares["correct"]}
    if study.corpus.endswith("relevance"):
        table = query(
            workspace,
            "SELECT avg((relevance = 'rare')::INT) AS share FROM ledger JOIN samples USING (key) "
            f"WHERE run = '{run}' AND selected",
        )
        found["low relevance"] = float(table["share"][0].as_py())
    return found


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 4) if known else None


def table2(setting: Setting) -> list[Study]:
    return [
        Study(name="cifar10", corpus="cifar10", variants=METHODS, targets=setting.targets["clean"], core_set=True),
        Study(
            name="cifar10, 10% wrong",
            corpus="cifar10-noise",
            variants=METHODS,
            targets=setting.targets["noise"],
            core_set=True,
        ),
    ]


def table3(setting: Setting) -> list[Study]:
    variants = ("uniform", "rho_loss")
    return [Study(name="no holdout", corpus="cifar10-folds", variants=variants, targets=setting.targets["clean"])]


def table4(setting: Setting) -> list[Study]:
    variants = ("uniform", "rho_loss", "rho_loss:live_il=true")
    return [replace(study, variants=variants, core_set=False) for study in table2(setting)]


def figure2(setting: Setting) -> list[Study]:
    changes: list[dict[str, Any]] = [{"model": model} for model in setting.architectures]
    changes += [{"learning_rate": rate} for rate in (3e-4, 3e-3)]
    changes += [{"batch_size": 64, "super_batch_size": 640}, {"weight_decay": 0.1}]
    return [
        Study(
            name=f"one IL table, {', '.join(f'{name} {value}' for name, value in change.items())}",
            corpus="cifar10-noise",
            variants=("uniform", "rho_loss"),
            settings=change,
        )
        for change in changes
    ]


def figure3(setting: Setting) -> list[Study]:
    variants = ("uniform", "train_loss", "grad_norm", "irreducible_loss", "rho_loss")
    _, noisy = table2(setting)
    relevance = Study(name="relevance", corpus="cifar10-relevance", variants=variants)
    return [replace(noisy, variants=variants, core_set=False), relevance]


def figure6(setting: Setting) -> list[Study]:
    variants = ("uniform", "train_loss", "grad_norm_is", "rho_loss")
    return [
        Study(name=f"{kind} noise", corpus=corpus, variants=variants, targets=(target,))
        for kind, corpus, target in (
            ("no", "mnist", 0.95),
            ("uniform", "mnist-noise", 0.93),
            ("structured", "mnist-structured", 0.80),
            ("ambiguous", "mnist-ambiguous", 0.93),
        )
    ]


def figure8(setting: Setting) -> list[Study]:
    drawn = (f"rho_loss:super_batch_size={count}" for count in (64, 160, 640))  # shares of 0.5, 0.2 and 0.05
    _, noisy = table2(setting)
    return [replace(noisy, variants=("uniform", *drawn, "rho_loss"), core_set=False)]


def figure9(setting: Setting) -> list[Study]:
    variants = ("uniform", *LABELS_FREE, "rho_loss")
    return [
        Study(
            name="active learning",
            corpus="mnist-noise",
            variants=variants,
            settings={"model": "mlp_dropout"},
            targets=(0.90, 0.94),
        )
    ]


RECIPES = {
    "table2": Recipe(
        title="Table 2: steps to a target accuracy, every method",
        paper=(
            "CIFAR-10, epochs to 80% and 87.5%: uniform 79 and never, train loss 81 and 129, gradient norm never, "
            "with importance sampling 57 and 139, SVP and irreducible loss never, RHO-LOSS 39 and 65 (0.49 of "
            "uniform's). With 10% wrong labels, to 75% and 85%: uniform 62 and never, importance sampling 57 and "
            "never, RHO-LOSS 27 and 49 (0.44), the others never."
        ),
        studies=table2,
        rows=steps_to_target,
    ),
    "table3": Recipe(
        title="Table 3: without a holdout, two IL models for each other's half",
        paper="CIFAR-10, epochs to 80% and 90%: uniform 39 and 177, RHO-LOSS 17 and 47 (0.44 and 0.27).",
        studies=table3,
        rows=steps_to_target,
    ),
    "table4": Recipe(
        title="Table 4: the original selection function, whose IL model goes on learning",
        paper=(
            "CIFAR-10, epochs to 60%, 75% and 90%: 18, 30 and 102 with the IL model left as it is; "
            "13, 24 and never (88%) where it goes on learning."
        ),
        studies=table4,
        rows=steps_to_target,
    ),
    "figure2": Recipe(
        title="Fig. 2: one small IL model's table for other architectures and settings",
        paper=(
            "Speeds up seven architectures (but for VGG11 on CIFAR-10) and nearly every setting, with "
            "an IL model of 21 times fewer parameters than the ResNet-18."
        ),
        studies=figure2,
        rows=speed_up,
    ),
    "figure3": Recipe(
        title="Fig. 3: what is selected",
        paper=(
            "Train loss and gradient norm select more wrong labels than uniform sampling, RHO-LOSS fewer; the former "
            "two more of low relevance, RHO-LOSS somewhat fewer; all methods fewer that are redundant."
        ),
        studies=figure3,
        rows=properties,
    ),
    "figure6": Recipe(
        title="Fig. 6: patterns of noise",
        paper=("RHO-LOSS is robust to three patterns of noise; train loss and gradient norm degrade under each."),
        studies=figure6,
        rows=steps_to_target,
    ),
    "figure8": Recipe(
        title="Fig. 8: the share of candidates that is selected",
        paper=("0.1 was not tuned; a smaller share typically trains faster, and the effect differs between datasets."),
        studies=figure8,
        rows=steps_to_target,
    ),
    "figure9": Recipe(
        title="Fig. 9: active learning's functions, which see no label",
        paper=(
            "Active learning's functions are faster than uniform sampling on MNIST, not on CIFAR-10; "
            "RHO-LOSS is on both."
        ),
        studies=figure9,
        rows=steps_to_target,
    ),
}
