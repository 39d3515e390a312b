"""Tables of what reading texts costs, and of what selecting them came to."""

import statistics
from typing import Any, Final

from figures import result, steps_of, table

#: Cases of texts.json as they are named to readers.
_CASES: Final = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "sst2-10": "SST-2, 10% wrong",
    "sst2-40": "SST-2, 40% wrong",
}
#: arXiv 2206.07137, Table 2: epochs to an accuracy (half of the data, pretrained ALBERT v2); None for not reached.
_PAPER: Final[dict[str, dict[str, float | None]]] = {
    "SST-2, 82.5%": {
        **{"uniform": 1, "rho_loss": 1, "train_loss": 8, "grad_norm": 2, "grad_norm_is": 3},
        **{"irreducible_loss": 7, "SVP": None},
    },
    "SST-2, 90%": {
        **{"uniform": 6, "rho_loss": 3, "train_loss": None, "grad_norm": 4, "grad_norm_is": None},
        **{"irreducible_loss": None, "SVP": None},
    },
    "CoLA, 75%": {
        **{"uniform": 34, "rho_loss": 3, "train_loss": 8, "grad_norm": 6, "grad_norm_is": 16},
        **{"irreducible_loss": None, "SVP": None},
    },
    "CoLA, 80%": {
        **{"uniform": None, "rho_loss": 39, "train_loss": None, "grad_norm": None, "grad_norm_is": None},
        **{"irreducible_loss": None, "SVP": None},
    },
}


def text_rates_table() -> str:
    """Tokenized texts that a CPU-second reads, and the stream's rate over that of each way with `datasets`."""
    ours, *others = result("text_rates")["readers"]
    rows = [["the stream, joined, shuffled, padded", f"{ours['rate']:,.0f}", ""]]
    rows += [
        [f"`datasets`: {each['reader']}", f"{each['rate']:,.0f}", f"{ours['rate'] / each['rate']:.2f}"]
        for each in others
    ]
    return table(["reader", "texts per CPU-second", "the stream's over it"], rows)


def texts_table(case: str) -> str:
    """Of each variant the steps of each seed to the targets, what they cost to the later one, and what came of them."""
    found = _case(case)
    rows = []
    for each in found["variants"]:
        seeds = each["seeds"]
        steps = [", ".join(steps_of(at["steps"] if at else None) for at in _at(seeds, number)) for number in (0, 1)]
        late = _at(seeds, 1)
        cpu = [f"{at['cpu_seconds']:,.0f}" if at else "never" for at in late]
        flops = [f"{at['flops'] / 1e12:,.1f}" if at else "never" for at in late]
        best = [_mean(seeds, "best_accuracy", "{:.1%}"), _mean(seeds, "best_mcc", "{:.3f}")]
        wrong = _mean(seeds, "selected_mislabeled", "{:.1%}")
        rows.append([each["variant"], *steps, ", ".join(cpu), ", ".join(flops), *best, wrong])
    form = "MCC {:.3f}" if found["metric"] == "mcc" else "{:.1%}"
    aims = [form.format(target) for target in found["targets"]]
    columns = [f"CPU-s to {aims[1]}", f"TFLOPs to {aims[1]}", "best accuracy", "best MCC", "wrong, of selected"]
    return table([_CASES[case], *(f"steps to {aim}" for aim in aims), *columns], rows)


def texts_ratio(asked: str) -> str:
    """The mean of a variant's steps to the later target over that of uniform sampling's.

    Args:
        asked: the case and the variant, as in "sst2-10:rho_loss".
    """
    case, _, variant = asked.partition(":")
    steps = {}
    for each in _case(case)["variants"]:
        late = _at(each["seeds"], 1)
        if all(late):
            steps[each["variant"]] = statistics.mean(at["steps"] for at in late if at)
    return f"{steps[variant] / steps['uniform']:.2f}" if variant in steps else "never"


def texts_plan(case: str) -> str:
    """What `rho plan` recommends, and the CPU-seconds that it foretells, the cheapest first."""
    plan = _case(case)["plan"]
    costs = ", ".join(f"{cost:,.0f} by `{name}`" for name, cost in plan["cpu_seconds"].items())
    return f"`{plan['best']}` (for what {plan['steps']} steps of uniform sampling reach, CPU-seconds: {costs})"


def texts_wrong(asked: str) -> str:
    """Share of wrong labels among what was selected before the first evaluation, and before the last.

    Args:
        asked: the case and the variant, as in "sst2-40:rho_loss".
    """
    case, _, variant = asked.partition(":")
    seeds = next(each["seeds"] for each in _case(case)["variants"] if each["variant"] == variant)
    first, last = (_mean(seeds, f"selected_mislabeled_{end}", "{:.0%}") for end in ("first", "last"))
    return f"{first}, and {last}"


def texts_paper_table() -> str:
    """The paper's epochs to its targets."""
    variants = list(_PAPER["SST-2, 82.5%"])
    rows = [[variant, *(steps_of(_PAPER[aim][variant]) for aim in _PAPER)] for variant in variants]
    ratios = [
        f"{rho / uniform:.2f}" if (rho := aim["rho_loss"]) and (uniform := aim["uniform"]) else ""
        for aim in _PAPER.values()
    ]
    return table(["epochs in the paper", *_PAPER], [*rows, ["rho_loss over uniform", *ratios]])


def texts_il(case: str) -> str:
    """How much of the labels' entropy the IL model explains, and how many of them it predicts."""
    found = _case(case)
    explained, right = f"{found['il_explained']:.0%}", f"{found['il_accuracy']:.0%}"
    clean = found.get("il_accuracy_clean")
    besides = "" if clean is None else f", and {clean:.0%} of the right labels"
    return f"{explained} of the entropy of the training labels and predicts {right} of them{besides}"


def _case(case: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in result("texts")["cases"] if each["case"] == case)
    return found


def _at(seeds: list[dict[str, Any]], number: int) -> list[dict[str, float] | None]:
    """Of each seed what it took to this target; None for never."""
    return [seed["reached"][number] for seed in seeds]


def _mean(seeds: list[dict[str, Any]], figure: str, form: str) -> str:
    known = [seed[figure] for seed in seeds if seed[figure] is not None]
    return form.format(statistics.mean(known)) if known else ""
