"""Tables and a picture of what `benchmarks/results/*.json` holds; `docs/render.py` puts them into README and docs."""

import json
import re
import statistics
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"

#: Cases of selection.json as they are named to readers, in order.
CASES = {
    "mnist-clean": "MNIST, clean",
    "mnist-10": "MNIST, 10% wrong",
    "mnist-40": "MNIST, 40% wrong",
    "mnist-5x": "MNIST five times over, 10% wrong",
    "cifar10-10": "CIFAR-10, 10% wrong",
    "cifar10-40": "CIFAR-10, 40% wrong",
}
VARIANTS = {
    "uniform": "uniform, n_b 32",
    "uniform:batch_size=128": "uniform, n_b 128",
    "uniform:prefilter=1": "IL filter, n_b 32",
    "uniform:batch_size=128:prefilter=1": "IL filter, n_b 128",
    "rho_loss": "rho_loss",
    "rho_loss:share=0.25:prefilter=1": "rho_loss, a quarter of each super-batch, filtered",
    "auto": "auto",
}
LOADERS = {
    "ceiling": "the C decoder alone (simplejpeg into one buffer)",
    "ffcv_beton": "FFCV",
    "litdata_chunks": "litdata",
    "imagefolder": "ImageFolder, simplejpeg",
    "webdataset_tars": "webdataset, simplejpeg",
    "hf_datasets": "HF datasets, simplejpeg",
    "mosaicml_streaming": "MosaicML streaming, simplejpeg",
}
OURS = {
    "64-raw": "rhostream, thumbnails of 64 pixels, raw",
    "64-jpeg": "rhostream, thumbnails of 64 pixels, JPEG",
    "full": "rhostream, full photographs",
}


@cache
def result(name: str) -> dict[str, Any]:
    """A result file by its name without `.json`."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return content


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _variant(name: str) -> str:
    return re.sub(r":steps=\d+", "", name)


def _reached(variant: dict[str, Any], figure: str) -> tuple[float | None, int, int]:
    """Median over the seeds (one that never arrives counts as infinite), seeds that arrive, and all."""
    values = [run["reached"][0][figure] for run in variant["runs"]]
    known = sorted(value for value in values if value is not None)
    ordered = [*known, *[float("inf")] * (len(values) - len(known))]
    median = statistics.median(ordered)
    return (None if median == float("inf") else median), len(known), len(values)


def cost_to_target(case: str, variant: str) -> float | None:
    """Median CPU-seconds to the case's target accuracy, a tenth of the IL model charged; None where most never do."""
    found = next(entry for entry in result("selection")["results"] if entry["case"] == case)
    return _reached(next(v for v in found["variants"] if _variant(v["variant"]) == variant), "cpu_seconds")[0]


def selection_table() -> str:
    """CPU-seconds (the whole IL model charged in brackets) and steps to each case's target."""
    cases = result("selection")["results"]
    header = ["", *(f"{CASES.get(case['case'], case['case'])}, {case['target']:.0%}" for case in cases)]
    rows = []
    for name, title in VARIANTS.items():
        cells = [title]
        for case in cases:
            variant = next((v for v in case["variants"] if _variant(v["variant"]) == name), None)
            if variant is None:
                cells.append("")
                continue
            seconds, arrived, seeds = _reached(variant, "cpu_seconds")
            if seconds is None:
                cells.append("never" if not arrived else f"{arrived} of {seeds}")
                continue
            whole, steps = _reached(variant, "cpu_seconds_whole_il")[0], _reached(variant, "steps")[0]
            note = "" if arrived == seeds else f", {arrived} of {seeds}"
            cells.append(f"{seconds:.1f} ({whole:.1f}), {steps:.0f}{note}")
        rows.append(cells)
    return table(header, rows)


def auto_ratios() -> str:
    """`auto`'s CPU-seconds over those of the best of the others, case by case."""
    ratios = []
    for case in result("selection")["results"]:
        others = [cost_to_target(case["case"], name) for name in VARIANTS if name != "auto" and _has(case, name)]
        auto = cost_to_target(case["case"], "auto")
        best = min(value for value in others if value is not None)
        ratios.append("never" if auto is None else f"{auto / best:.2f}")
    return ", ".join(ratios)


def _has(case: dict[str, Any], name: str) -> bool:
    return any(_variant(variant["variant"]) == name for variant in case["variants"])


def loaders_table() -> str:
    """Images a second on one and on two cores, median of the rounds, fastest first."""
    rates: dict[tuple[str, int], float] = {}
    for entry in result("loaders")["measurements"]:
        if entry["task"] != "rate" or entry["variant"].endswith("+32"):
            continue
        if entry["loader"] == "rhostream_stream":
            title = OURS[entry["variant"]]
        elif entry["variant"] == "PIL":
            title = "webdataset, as it comes (Pillow)"
        else:
            title = LOADERS[entry["loader"]]
        rate = statistics.median(one["rate"] for one in entry["rounds"])
        rates[title, entry["cores"]] = max(rate, rates.get((title, entry["cores"]), 0.0))
    titles = sorted({title for title, _ in rates}, key=lambda title: -rates[title, 2])
    return table(
        ["images a second", "one core", "two cores"],
        [[title, *(f"{rates[title, cores]:,.0f}" for cores in (1, 2))] for title in titles],
    )


_OF_TREES = {
    "full": "loading, photographs of 256 pixels",
    "64-jpeg": "loading, thumbnails of 64 pixels, JPEG",
    "64-raw": "loading, thumbnails of 64 pixels, raw",
    "selector": "loading raw thumbnails, scoring by a small CNN, choosing 32 of 320",
    "scoring": "the scoring pass alone",
}


def trees_table() -> str:
    """CPU time of a candidate in two trees, medians and ranges, and how fast the later one is beside the earlier."""
    found = result("trees")
    commits = found["commits"]
    rows = [
        [name, *(_median_and_range(found["measured"][kind][tree]) for tree in commits), f"{found['ratio'][kind]:.2f}"]
        for kind, name in _OF_TREES.items()
    ]
    return table(["CPU time of a candidate", *(f"{tree} ({commits[tree]})" for tree in commits), "ratio"], rows)


def _median_and_range(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} µs ({min(values):.1f} to {max(values):.1f})"


def tree_lines_table() -> str:
    """Lines of Python of both trees, by folder."""
    lines = result("trees")["lines"]
    product = ("rhostream", "loaders", "selection", "pipeline", "cli")
    rows = [[f"`{name}/`", *(f"{each.get(name, 0):,}" for each in lines.values())] for name in lines["now"]]
    rows.append(
        ["the five folders of the product", *(f"{sum(each[name] for name in product):,}" for each in lines.values())]
    )
    return table(["lines of Python", *lines], rows)


def join_table() -> str:
    """What the join costs, and memory, by the number of rows."""
    found = result("join")["results"]
    columns = list(found)
    rows = [
        ["join, a candidate", *(f"{found[n]['join_microseconds_per_candidate']:.2f} µs" for n in columns)],
        ["its share of the loader's CPU time", *(f"{found[n]['join_share_of_cpu']:.2%}" for n in columns)],
        ["memory above PyTorch's import", *(f"{found[n]['memory_mb']:.0f} MB" for n in columns)],
        ["first super-batch after", *(f"{found[n]['seconds_to_first_super_batch']:.2f} s" for n in columns)],
    ]
    return table(["", *(f"{int(n):,} rows" for n in columns)], rows)


def mnist_table() -> str:
    """Steps to an accuracy on MNIST with wrong labels, by seed."""

    def steps(values: list[int | None]) -> str:
        return ", ".join("never" if value is None else f"{value:,}" for value in values)

    rows = []
    for case in result("mnist_noise")["results"]:
        loss = steps(case["train_loss"]["steps_to_target"]) if "train_loss" in case else ""
        ours = steps(case["rho_loss"]["steps_to_target"])
        uniform = steps(case["uniform"]["steps_to_target"])
        rows.append(
            [case["case"], f"{case['target']:.0%}", uniform, ours, f"{case['share_of_uniforms_steps']:.2f}", loss]
        )
    return table(["labels", "to", "uniform", "rho_loss", "ratio", "train_loss"], rows)


def thumbnails_table() -> str:
    """Steps to a late accuracy where candidates are scored on thumbnails, and the selected in common with full size."""
    found = result("thumbnails")["results"]
    corpora = list(found)
    kinds = ("uniform", "full", "128-jpeg", "96-jpeg", "64-jpeg", "64-jpeg scored ahead")
    rows = []
    for kind in kinds:
        cells = [kind]
        for corpus in corpora:
            runs = found[corpus]["training"].get(kind)
            steps = runs if isinstance(runs, list) else (runs or {}).get("steps_to_target", [])
            steps = steps if isinstance(steps, list) else [steps]
            cells.append(", ".join("never" if step is None else f"{step}" for step in steps))
        for moment in ("step 10", "step 50", "step 150"):
            shares = [found[corpus]["selection"][moment].get(kind, {}).get("overlap") for corpus in corpora]
            cells.append(" and ".join(f"{share:.0%}" for share in shares if share is not None))
        rows.append(cells)
    return table(["scored on", *corpora, "in common at step 10", "step 50", "step 150"], rows)


def mislabeled_table() -> str:
    """Precision and recall of `rho explain mislabeled`."""
    return table(
        ["corpus", "wrong labels", "named", "precision", "recall"],
        [
            [
                case["case"],
                f"{case['base_rate']:.0%}",
                f"{case['il']['named']:,}",
                f"{case['il']['precision']:.1%}",
                f"{case['il']['recall']:.1%}",
            ]
            for case in result("mislabeled")["results"]
        ],
    )


def explain_table() -> str:
    """The slowest question and view over large ledgers, in seconds."""
    rows = []
    for case in result("explain_scale")["results"]:
        questions = [answer for answer in case["answers"] if not answer["asked"].startswith("view ")]
        views = [answer for answer in case["answers"] if answer["asked"].startswith("view ")]
        slowest, second = sorted(questions, key=lambda answer: -answer["seconds"])[:2]
        rows.append(
            [
                f"{case['ledger_rows']:,}",
                f"{slowest['seconds']:.1f} s (`{slowest['asked']}`)",
                f"{second['seconds']:.1f} s (`{second['asked']}`)",
                f"{max(answer['seconds'] for answer in views):.1f} s",
            ]
        )
    return table(["ledger rows", "slowest question", "next", "slowest view"], rows)


def report_figures() -> str:
    """What a report of a million samples weighs and takes."""
    found = result("report_scale")
    case = found["results"][0]
    opened = case["open_seconds"]
    return (
        f"A report over {found['samples']:,} samples and {case['ledger_rows']:,} ledger rows took "
        f"{case['seconds']:.0f} s and {case['peak_memory_gib']:.1f} GiB to write; its page of {case['page_mb']:.1f} MB "
        f"opens in {min(opened):.1f} to {max(opened):.1f} s."
    )


def near_duplicates_table() -> str:
    """Which copies are found, and how many pairs that nobody planted."""
    corpora = result("near_duplicates")["corpora"]
    rows = [
        [way, *(f"{found['found'][way] / found['copies_of_each_kind']:.1%}" for found in corpora)]
        for way in corpora[0]["found"]
    ]
    rows.append(["copies of each kind", *(f"{found['copies_of_each_kind']:,}" for found in corpora)])
    rows.append(["pairs of equal files", *(f"{found['not_planted']['equal files']:,}" for found in corpora)])
    rows.append(["other pairs", *(f"{found['not_planted']['others']:,}" for found in corpora)])
    rows.append(["CPU-s", *(f"{found['cpu_seconds']:.0f}" for found in corpora)])
    return table(["copies found", *(f"{found['images']:,} {found['corpus']}" for found in corpora)], rows)


def steps_table(name: str) -> str:
    """Steps to each target, a row a method, of a reproduction's result."""
    rows = result(f"reproductions/{name}")["rows"]
    columns = list(dict.fromkeys((row["study"], row["target"]) for row in rows))
    methods = list(dict.fromkeys(row["variant"] for row in rows))
    steps = {(row["study"], row["target"], row["variant"]): row["steps"] for row in rows}
    cells = [
        [method, *(steps_of(steps.get((study, target, method))) for study, target in columns)] for method in methods
    ]
    return table(["", *(f"{study}, {target:.0%}" for study, target in columns)], cells)


def reproduction(name: str) -> str:
    """One of the paper's tables or figures as we found it: setting, what the paper says, and our rows."""
    found = result(f"reproductions/{name}")
    rows, setting, machine = found["rows"], found["setting"], found["machine"]
    where = machine.get("gpu") or f"{machine['cores']} CPU cores"
    about = (
        f"Setting *{setting['name']}*, seeds {', '.join(map(str, found['seeds']))}, on {where}. Paper: {found['paper']}"
    )
    if "steps" in rows[0]:
        return f"{about}\n\n{steps_table(name)}"
    header = list(dict.fromkeys(column for row in rows for column in row))
    return f"{about}\n\n{table(header, [[_cell(row.get(column)) for column in header] for row in rows])}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)


def steps_of(value: float | None) -> str:
    return "never" if value is None else f"{value:,.0f}"


def rows_to_targets(runs: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Steps and CPU-seconds of runs of a comparison until each of its targets."""
    rows = []
    for number, aim in enumerate(runs[0]["reached"]):
        cells = [run["reached"][number] for run in runs]
        told = ["never" if c["steps"] is None else f"{c['steps']} steps, {c['cpu_seconds']:.0f} CPU-s" for c in cells]
        rows.append([f"to {aim['target']:.1%}", *told])
    return rows


def demo_table(name: str = "demo") -> str:
    """What `make demo`, or another demo, came to: one seed, two cores, the whole IL model charged."""
    runs = [variant["runs"][0] for variant in result(name)["variants"]]
    costs = ("load", "score", "train", "il_train", "il_score")
    rows = [
        ["final accuracy", *(f"{run['final_accuracy']:.1%}" for run in runs)],
        ["mislabeled, of selected, whole run", *(f"{run['mislabeled']:.1%}" for run in runs)],
        ["mislabeled, of candidates, whole run", *(f"{run['candidates_mislabeled']:.1%}" for run in runs)],
        ["CPU-seconds of the run", *(f"{sum(run['cpu_seconds'][cost] for cost in costs):.0f}" for run in runs)],
    ]
    rows += rows_to_targets(runs)
    return table(["", *(variant["variant"].split(":")[0] for variant in result(name)["variants"])], rows)
