"""Tables of what selecting came to on corpora that no default was chosen on, and on image-text pairs."""

import statistics
from typing import Any

from figures import result, rows_to_targets, steps_of, table

#: Cases of unseen.json as they are named to readers, in order.
UNSEEN = {
    "types-40": "product photographs by type, 40% wrong",
    "types": "the same, as found",
}


def unseen_table(name: str = "unseen") -> str:
    """Steps of each seed to the target, the best accuracy, and what was wrong among the selected."""
    cases = {case["case"]: case for case in result(name)["cases"]}
    titles = {case: told for case, told in UNSEEN.items() if case in cases}
    rows = []
    for number, variant in enumerate(next(iter(cases.values()))["variants"]):
        cells = [variant["variant"]]
        for case in titles:
            seeds = cases[case]["variants"][number]["seeds"]
            steps = ", ".join(steps_of(seed["steps_to_target"]) for seed in seeds)
            best = statistics.mean(seed["best_accuracy"] for seed in seeds)
            seconds = [seed["cpu_seconds_to_target"] for seed in seeds if seed["cpu_seconds_to_target"]]
            wrong = [seed["selected_mislabeled"] for seed in seeds if seed["selected_mislabeled"] is not None]
            cost = f" ({', '.join(f'{each:.0f}' for each in seconds)} CPU-s)" if seconds else ""
            mislabeled = f", {statistics.mean(wrong):.0%} wrong" if wrong else ""
            cells.append(f"{steps}{cost}; {best:.1%}{mislabeled}")
        rows.append(cells)
    return table(["", *(f"{told}: {cases[case]['target']:.1%}" for case, told in titles.items())], rows)


def foretold_table() -> str:
    """Of uniform sampling's steps and CPU-seconds, what `rho plan` foretold and what each variant then took."""
    rows = []
    for name, target in (("unseen", "small CNN"), ("unseen-resnet18", "ResNet-18")):
        for case in result(name)["cases"]:
            found = {each["variant"]: each["seeds"] for each in case["variants"]}
            planned = case["foretold"]["variants"]
            for variant in planned:
                if variant == "uniform" or variant not in found:
                    continue
                cells = [f"{UNSEEN[case['case']]}, {target}", variant]
                for figure in ("steps", "cpu_seconds"):
                    told = planned[variant][figure] / planned["uniform"][figure]
                    means = [_mean(found[each], f"{figure}_to_target") for each in (variant, "uniform")]
                    cells.append(f"{told:.2f}, {means[0] / means[1]:.2f}")
                rows.append(cells)
    return table(["", "", "steps: foretold, found", "CPU-seconds: foretold, found"], rows)


def _mean(seeds: list[dict[str, Any]], figure: str) -> float:
    return float(statistics.mean(seed[figure] for seed in seeds if seed[figure] is not None))


def _unseen(variant: str, figure: str) -> list[float]:
    """Of each case the mean over its seeds that know the figure; cases where none does are left out."""
    found = []
    for case in result("unseen")["cases"]:
        (seeds,) = (each["seeds"] for each in case["variants"] if each["variant"] == variant)
        known = [seed[figure] for seed in seeds if seed[figure] is not None]
        found += [statistics.mean(known)] if known else []
    return found


def unseen_steps() -> str:
    """`learnable`'s steps to the target over uniform sampling's, of the best case and the worst."""
    pairs = zip(_unseen("learnable", "steps_to_target"), _unseen("uniform", "steps_to_target"), strict=True)
    ratios = [steps / uniform for steps, uniform in pairs]
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


def unseen_wrong(of: str = "selected") -> str:
    """Mislabeled among what `learnable` selected, or among its candidates, where it is known."""
    return " and ".join(f"{share:.0%}" for share in _unseen("learnable", f"{of}_mislabeled"))


def pairs_demo_table() -> str:
    """What `make demo-pairs` came to: one seed, a tenth of the reference model charged."""
    runs = [variant["runs"][0] for variant in result("demo_pairs")["variants"]]
    costs = ("load", "score", "train", "il_train", "il_score")
    rows = [
        ["steps", *(f"{run['steps']:,}" for run in runs)],
        ["final recall@10", *(f"{run['final_accuracy']:.1%}" for run in runs)],
        ["samples seen", *(f"{run['seen']:,}" for run in runs)],
        ["samples trained on", *(f"{run['trained']:,}" for run in runs)],
        ["wrong captions, of selected", *(f"{run['mislabeled']:.1%}" for run in runs)],
        ["wrong captions, of candidates", *(f"{run['candidates_mislabeled']:.1%}" for run in runs)],
        ["CPU-seconds", *(f"{sum(run['cpu_seconds'][cost] for cost in costs):.0f}" for run in runs)],
        ["of these for the reference", *(f"{sum(run['cpu_seconds'][cost] for cost in costs[3:]):.0f}" for run in runs)],
    ]
    rows += rows_to_targets(runs)
    return table(["", *(variant["variant"].split(":")[0] for variant in result("demo_pairs")["variants"])], rows)


def pairs_table() -> str:
    """Product photographs with 40% wrong captions: what each selection took to the recall that uniform ends with."""
    found = result("pairs")
    rows = []
    for run in found["runs"]:
        at = run["reached"]
        cells = (
            [f"{at['step']:,}", f"{at['seen']:,}", f"{at['trained']:,}", f"{at['cpu_seconds']:.0f}"]
            if at
            else ["never"] * 4
        )
        wrong = [f"{run[share]:.0%}" for share in ("wrong_first_third", "wrong_selected")]
        rows.append([run["variant"], *cells, f"{run['best']:.1%}", *wrong])
    header = ["", f"steps to {found['target']:.1%}", "samples seen", "trained on", "CPU-seconds", "best recall@10"]
    return table([*header, "wrong, first third", "wrong, whole run"], rows)


def pairs_reference_table() -> str:
    """How well the reference table of `pairs_table` tells wrong captions from true ones."""
    found = result("pairs")["reference"]
    rows = [[f"{each['listed']:,}", f"{each['precision']:.0%}", f"{each['recall']:.0%}"] for each in found["found"]]
    return table(["pairs listed", "precision", "recall"], rows)
