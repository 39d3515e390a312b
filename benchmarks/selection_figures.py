"""Tables of what selecting came to on corpora that no default was chosen on, and on image-text pairs."""

import io
import statistics
from typing import Any

import matplotlib
from figures import result, rows_to_targets, steps_of, table

#: Cases of unseen.json as they are named to readers, in order.
UNSEEN = {
    "types-40": "product photographs by type, 40% wrong",
    "types": "product photographs by type, as found",
    "colors-40": "others by color, 40% wrong",
    "colors": "others by color, as found",
    "emoji-40": "emoji by group, 40% wrong",
    "wearers-40": "others by wearer, 40% wrong",
    "subcategories-40": "others by subcategory, 40% wrong",
    "imagefolder-40": "photographs of clothing by class, 40% wrong",
    "cifar10-40": "CIFAR-10, 40% wrong",
}
#: Uniform sampling of what is labeled rightly, by the truth: as well as a filter can do.
BOUND = "right labels alone"
#: What the front page shows: the results of a target, and its name.
TARGETS = {"unseen-resnet18": "ResNet-18", "unseen": "small CNN"}


def unseen_table(name: str = "unseen") -> str:
    """Steps of each seed to the target, the best accuracy, and what was wrong among the selected."""
    cases = {case["case"]: case for case in result(name)["cases"]}
    titles = {case: told for case, told in UNSEEN.items() if case in cases}
    variants = list(dict.fromkeys(each["variant"] for case in cases.values() for each in case["variants"]))
    rows = [[variant, *(_outcome(_seeds(cases[case], variant)) for case in titles)] for variant in variants]
    return table(["", *(f"{told}: {cases[case]['target']:.1%}" for case, told in titles.items())], rows)


def folds_table() -> str:
    """What `learnable` and uniform sampling came to by a holdout of a tenth, by two folds and by five."""
    made = {
        f"{target}, {told}": {case["case"]: case for case in result(name)["cases"]}
        for name, told in (
            ("unseen-holdout", "a holdout"),
            ("unseen-two-folds", "two folds"),
            ("unseen-five-folds", "five folds"),
        )
        for target in ("uniform", "learnable")
    }
    titles = {case: told for case, told in UNSEEN.items() if all(case in cases for cases in made.values())}
    rows = [
        [told, *(_outcome(_seeds(cases[case], told.split(",")[0])) for case in titles)] for told, cases in made.items()
    ]
    return table(["", *titles.values()], rows)


def il_models_table() -> str:
    """What IL models tell of the labels, and what they cost, beside each other."""
    found = {case["case"]: {each["model"]: each for each in case["models"]} for case in result("il_models")["cases"]}
    figures = {
        "CPU-s": ("cpu_seconds", "{:.0f}"),
        "entropy explained": ("explained", "{:.1%}"),
        "true labels predicted": ("true_labels_predicted", "{:.1%}"),
        "area under the ROC curve": ("area", "{:.3f}"),
        "wrong that the filter leaves": ("wrong_left", "{:.1%}"),
        "right that it loses": ("right_lost", "{:.1%}"),
    }
    rows = []
    for case in (each for each in UNSEEN if each in found):
        models = found[case].values()
        told = [", ".join(form.format(each[key]) for each in models) for key, form in figures.values()]
        rows.append([UNSEEN[case], *told])
    return table([", ".join(next(iter(found.values()))), *figures], rows)


def cross_fit_table() -> str:
    """What cross-fitting does to the mean loss of the samples that are scored, and what it costs with its IL model."""
    rows = []
    for case in result("unseen")["cases"]:
        il = case["il"]
        fits = [each for each in il["cross_fit"] if each is not None]
        samples = sum(each["samples"] for each in fits)
        before, after = (
            sum(each["samples"] * each[name] for each in fits) / samples for name in ("loss_before", "loss")
        )
        explained = f"{il['explained']:.0%}"
        rows.append([UNSEEN[case["case"]], f"{before:.3f}", f"{after:.3f}", explained, f"{il['cpu_seconds']:.0f}"])
    return table(["", "nats, before", "after", "of the labels' entropy explained", "CPU-s, IL model and table"], rows)


def _outcome(seeds: list[dict[str, Any]]) -> str:
    if not seeds:
        return ""
    steps = ", ".join(steps_of(seed["steps_to_target"]) for seed in seeds)
    best = statistics.mean(seed["best_accuracy"] for seed in seeds)
    seconds = [seed["cpu_seconds_to_target"] for seed in seeds if seed["cpu_seconds_to_target"]]
    wrong = [seed["selected_mislabeled"] for seed in seeds if seed["selected_mislabeled"] is not None]
    cost = f" ({', '.join(f'{each:.0f}' for each in seconds)} CPU-s)" if seconds else ""
    mislabeled = f", {statistics.mean(wrong):.0%} wrong" if wrong else ""
    return f"{steps}{cost}; {best:.1%}{mislabeled}"


def _seeds(case: dict[str, Any], variant: str) -> list[dict[str, Any]]:
    """Of a case what the seeds of a variant came to; none where it was not run."""
    return next((each["seeds"] for each in case["variants"] if each["variant"] == variant), [])


def paying_table() -> str:
    """README's: steps to what uniform sampling reaches late, wherever 40% of the labels are wrong."""
    columns = [
        (target, case)
        for name, target in TARGETS.items()
        for case in result(name)["cases"]
        if case["case"].endswith("-40")
    ]
    rows = []
    for variant in ("uniform", "IL filter", "learnable", BOUND):
        found = [_seeds(case, variant) for _, case in columns]
        steps = [[seed["steps_to_target"] for seed in seeds] for seeds in found]
        rows.append([variant, *(", ".join(map(steps_of, each)) for each in steps)])
    told = [f"{target}: {UNSEEN[case['case']].removesuffix(', 40% wrong')}" for target, case in columns]
    return table(["steps", *told], rows)


def render_picture() -> bytes:
    """Steps and CPU-seconds of a ResNet-18 to what uniform sampling reaches late, as SVG: the same bytes every time."""
    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    cases = result("unseen-resnet18")["cases"]
    colors = {"uniform": "#9aa5b1", "IL filter": "#74b816", "learnable": "#d9480f", BOUND: "#dee2e6"}
    titles = {"steps": "gradient steps", "cpu_seconds": "CPU-seconds, the whole IL model charged"}
    with plt.rc_context({"svg.hashsalt": "rhostream", "svg.fonttype": "none", "font.size": 9}):
        figure, grid = plt.subplots(
            len(cases), 2, figsize=(8, 1.9 * len(cases)), layout="constrained", sharex="col", squeeze=False
        )
        for case, panels in zip(cases, grid, strict=True):
            for panel, (unit, title) in zip(panels, titles.items(), strict=True):
                for number, (name, color) in enumerate(reversed(colors.items())):
                    value = _mean(_seeds(case, name), f"{unit}_to_target")
                    panel.barh(number, value, color=color)
                    panel.text(value, number, f" {value:,.0f}", va="center")
                panel.set_yticks(range(len(colors)), list(reversed(colors)))
                panel.set_title(UNSEEN[case["case"]].removesuffix(", 40% wrong"), fontsize=9, loc="left")
                panel.set_xlabel(title if case is cases[-1] else "")
                panel.spines[["top", "right"]].set_visible(False)
                panel.margins(x=0.15)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
    return buffer.getvalue()


def il_grid_table() -> str:
    """The validation loss that `rho il train` comes to by itself, beside the best of the grid."""
    rows = []
    for case in result("il_grid")["cases"]:
        found, best = case["found"], min(case["grid"], key=lambda each: each["validation_loss"])
        rows.append(
            [
                UNSEEN[case["case"]],
                f"{found['validation_loss']:.3f} ({found['steps']} steps, {found['cpu_seconds']:.0f} CPU-s)",
                f"{best['validation_loss']:.3f} ({best['steps']} steps at {best['learning_rate']:g}, "
                f"{best['cpu_seconds']:.0f} CPU-s)",
                f"{sum(each['cpu_seconds'] for each in case['grid']):.0f} CPU-s",
            ]
        )
    return table(["validation loss, nats", "by itself", "best of the grid", "the whole grid"], rows)


def foretold_table() -> str:
    """Of uniform sampling's steps and CPU-seconds, what `rho plan` foretold and what each variant then took."""
    rows = []
    runs = {
        "unseen": "small CNN",
        "unseen-resnet18": "ResNet-18",
    }
    for name, target in runs.items():
        for case in result(name)["cases"]:
            found = {each["variant"]: each["seeds"] for each in case["variants"]}
            planned = case["foretold"]["variants"]
            for variant in planned:
                if variant == "uniform" or variant not in found:
                    continue
                cells = [f"{UNSEEN[case['case']]}, {target}", variant]
                for figure in ("steps", "cpu_seconds"):
                    told = planned[variant][figure] / planned["uniform"][figure]
                    ends = [found[each] for each in (variant, "uniform")]
                    arrived = any(seed["steps_to_target"] for seed in ends[0])
                    means = [_mean(seeds, f"{figure}_to_target") for seeds in ends] if arrived else []
                    cells.append(f"{told:.2f}, {means[0] / means[1]:.2f}" if means else f"{told:.2f}, never")
                rows.append(cells)
    return table(["", "", "steps: foretold, found", "CPU-seconds: foretold, found"], rows)


def _mean(seeds: list[dict[str, Any]], figure: str) -> float:
    return float(statistics.mean(seed[figure] for seed in seeds if seed[figure] is not None))


def _unseen(variant: str, figure: str) -> dict[str, float]:
    """By case the mean over the seeds, where each knows the figure and the IL model is none too weak to arrive by."""
    known = {
        case["case"]: [seed[figure] for seed in _seeds(case, variant)]
        for case in result("unseen")["cases"]
        if any(seed["steps_to_target"] for seed in _seeds(case, "learnable"))
    }
    return {case: statistics.mean(figures) for case, figures in known.items() if None not in figures}


def unseen_steps() -> str:
    """`learnable`'s steps to the target over uniform sampling's, of the best case and the worst where it arrives."""
    steps, uniform = _unseen("learnable", "steps_to_target"), _unseen("uniform", "steps_to_target")
    ratios = [steps[case] / uniform[case] for case in uniform]
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


def unseen_wrong() -> str:
    """Mislabeled among what `learnable` selected, of the best case and the worst of `unseen_steps`."""
    shares = [f"{share:.0%}" for share in sorted(_unseen("learnable", "selected_mislabeled").values())]
    return shares[0] if shares[0] == shares[-1] else f"{shares[0]} to {shares[-1]}"


def unseen_seconds(variant: str) -> str:
    """CPU-seconds to the target over uniform sampling's, of the best case and the worst, of the seeds that arrive."""
    ratios = sorted(_seconds_ratios("unseen", variant))
    return f"{ratios[0]:.2f} to {ratios[-1]:.2f}"


def unseen_plans(of: str = "unseen") -> str:
    """What `rho plan` names, of each case."""
    return ", ".join(
        f"`{case['foretold']['best']}` by {UNSEEN[case['case']].split(',')[0].rpartition('by ')[2]}"
        for case in result(of)["cases"]
    )


def resnet_seconds(variant: str) -> str:
    """CPU-seconds to the target over uniform sampling's, by case, of a ResNet-18, the whole IL model charged."""
    return " and ".join(f"{ratio:.2f}" for ratio in _seconds_ratios("unseen-resnet18", variant))


def _seconds_ratios(of: str, variant: str) -> list[float]:
    ratios = []
    for case in result(of)["cases"]:
        found, uniform = (_mean(_seeds(case, each), "cpu_seconds_to_target") for each in (variant, "uniform"))
        ratios.append(found / uniform)
    return ratios


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


def pairs_table(name: str = "pairs") -> str:
    """Product photographs with 40% wrong captions: what each selection took to the recall that uniform ends with.

    Means over the seeds, with the range where there are several; those that did not get there are counted.
    """
    found = result(name)
    rows = []
    for variant, runs in _by_variant(found).items():
        reached = [run["reached"] for run in runs if run["reached"]]
        cells = [
            _over([at[unit] / per for at in reached], form) if reached else "never"
            for unit, per, form in (
                *((unit, 1, "{:,.0f}") for unit in ("step", "seen", "trained", "cpu_seconds")),
                ("flops", 1e12, "{:.1f}"),
            )
        ]
        if 0 < len(reached) < len(runs):
            cells[0] += f", {len(runs) - len(reached)} never"
        shares = [_over([run[name] for run in runs], "{:.0%}") for name in ("wrong_first_third", "wrong_selected")]
        rows.append([variant, str(len(runs)), *cells, _over([run["best"] for run in runs], "{:.1%}"), *shares])
    header = ["", "seeds", f"steps to {found['target']:.1%}", "samples seen", "trained on", "CPU-seconds", "TFLOPs"]
    return table([*header, "best recall@10", "wrong, first third", "wrong, whole run"], rows)


def pairs_shares_table(name: str = "pairs") -> str:
    """What each selection of `pairs_table` took to the target, as a share of what uniform sampling of its seed took.

    Without those that no seed got there by.
    """
    every = _by_variant(result(name))
    uniform = {run["seed"]: run["reached"] for run in every.pop("uniform")}
    rows = []
    for variant, runs in every.items():
        ends = [(run["reached"], uniform[run["seed"]]) for run in runs]
        if not any(at for at, _ in ends):
            continue
        cells = [
            ", ".join("never" if at is None else f"{at[unit] / of[unit]:.2f}" for at, of in ends)
            for unit in ("step", "seen", "cpu_seconds", "flops")
        ]
        rows.append([variant, ", ".join(str(run["seed"]) for run in runs), *cells])
    return table(["", "seeds", "steps, samples trained on", "samples seen", "CPU-seconds", "FLOPs"], rows)


def pairs_costs_table(name: str = "pairs") -> str:
    """CPU-seconds of the whole runs of `pairs_table` and what they went to: means over the seeds."""
    parts = (("load",), ("score",), ("train",), ("il_train", "il_score"), ("thumbnails",))
    rows = []
    for variant, runs in _by_variant(result(name)).items():
        ends = [run["end"] for run in runs]
        spent = [statistics.mean(sum(run["spent"][each] for each in names) for run in runs) for names in parts]
        cells = [f"{each:.0f}" for each in (*spent, statistics.mean(end["cpu_seconds"] for end in ends))]
        flops = f"{statistics.mean(end['flops'] for end in ends) / 1e12:.1f}"
        recall = _over([end["recall"] for end in ends], "{:.1%}")
        counts = [f"{ends[0][unit]:,}" for unit in ("step", "seen", "trained")]
        rows.append([variant, str(len(runs)), *counts, *cells, flops, recall])
    header = ["", "seeds", "steps", "seen", "trained on", "load", "score", "train", "reference", "thumbnails"]
    return table([*header, "CPU-seconds", "TFLOPs", "recall@10 at the end"], rows)


def pairs_flexi_table() -> str:
    """What cheaper scoring, and none, leave of JEST's CPU-seconds and of its gain, over the seeds that both have.

    The gain is the recall at the end less that at the end of uniform sampling.
    """
    every = {name: {run["seed"]: run for run in runs} for name, runs in _by_variant(result("pairs")).items()}

    def gain(of: dict[int, dict[str, Any]], seed: int) -> float:
        return float(of[seed]["end"]["recall"]) - float(every["uniform"][seed]["end"]["recall"])

    rows = []
    for variant, of in every.items():
        base = f"jest {variant.split()[1]}" if " " in variant else ""
        seeds = sorted(of.keys() & every.get(base, {}).keys())
        one = of[seeds[0]] if seeds else None
        if variant == base or one is None or one["end"]["step"] != every[base][seeds[0]]["end"]["step"]:
            continue
        both = (of, every[base])
        spent = [statistics.mean(each[seed]["end"]["cpu_seconds"] for seed in seeds) for each in both]
        gains = [statistics.mean(gain(each, seed) for seed in seeds) for each in both]
        gained = f"{gains[0] / gains[1]:.2f}" if gains[0] > 0 else "none"
        rows.append([variant, base, ", ".join(map(str, seeds)), f"{spent[0] / spent[1]:.2f}", gained])
    return table(["", "beside", "seeds", "CPU-seconds of the run", "gain"], rows)


def pairs_step_table() -> str:
    """CPU-seconds of a step, measured one after the other, and with a tenth of the reference model over 180 steps."""
    runs = {run["variant"]: run for run in result("pairs-costs")["runs"]}
    rows, steps = [], 180

    def of_step(run: dict[str, Any]) -> list[float]:
        return [run["spent"][part] / run["end"]["step"] for part in ("load", "score", "train")]

    def whole(run: dict[str, Any]) -> float:
        shared = [float(run["spent"][part]) for part in ("il_train", "il_score", "thumbnails")]
        return steps * sum(of_step(run)) + sum(shared)

    jest = runs["jest 0.5"]
    for variant, run in runs.items():
        spent = of_step(run)
        shares = (sum(spent) / sum(of_step(jest)), whole(run) / whole(jest))
        of_jest = [f"{share:.2f}" for share in shares] if run["end"]["trained"] < run["end"]["seen"] else ["", ""]
        rows.append([variant, *(f"{each:.2f}" for each in (*spent, sum(spent))), *of_jest])
    return table(
        ["", "load", "score", "train", "a step", "of JEST's", f"of JEST's {steps} steps, with the reference"], rows
    )


def _by_variant(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    names = dict.fromkeys(run["variant"] for run in found["runs"])
    return {name: [run for run in found["runs"] if run["variant"] == name] for name in names}


def _over(values: list[float], form: str) -> str:
    """The mean, and the range of several."""
    mean, ends = form.format(sum(values) / len(values)), [form.format(end) for end in (min(values), max(values))]
    return mean if ends[0] == ends[1] else f"{mean} ({ends[0]} to {ends[1]})"


def pair_rates_table() -> str:
    """Pairs that a CPU-second reads, by reader, and how many times as many as open_clip's own pipeline."""
    rows = []
    for corpus in result("pair_rates")["corpora"]:
        rates = {each["reader"]: each["rate"] for each in corpus["readers"]}
        for reader, rate in rates.items():
            rows.append(
                [corpus["corpus"], f"{corpus['size']}", reader, f"{rate:,.0f}", f"{rate / rates['open_clip']:.1f}"]
            )
    return table(["tars", "pixels", "reader", "pairs per CPU-second", "of open_clip's"], rows)


def divide_and_contrast_table() -> str:
    """SimCLR on all images beside DnC: what a linear probe makes of their features."""
    runs = result("divide_and_contrast")["runs"]
    rows = [
        [
            name,
            "0" if name == "untrained" else _over([run["steps"] for run in runs], "{:,.0f}"),
            _over([run["accuracy"][name] for run in runs], "{:.1%}"),
            "" if name == "untrained" else _over([run["cpu_seconds"][name] for run in runs], "{:,.0f}"),
        ]
        for name in runs[0]["accuracy"]
    ]
    return table(["", "steps", "linear probe", "CPU-seconds"], rows)


def pairs_reference_table() -> str:
    """How well the reference table of `pairs_table` tells wrong captions from true ones."""
    found = result("pairs")["reference"]
    rows = [[f"{each['listed']:,}", f"{each['precision']:.0%}", f"{each['recall']:.0%}"] for each in found["found"]]
    return table(["pairs listed", "precision", "recall"], rows)
