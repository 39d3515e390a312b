"""The tables of `rho train`."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rhostream.pipeline.comparison import Comparison, Outcome, Spread, VariantOutcome

PASSED_OVER = "passed over: "

Table = Mapping[str, list[str]]


def tables(comparison: "Comparison") -> list[Table]:
    """What the runs came to, a column a variant; then for each target accuracy what it took, a row a variant."""
    columns = [_column(variant) for variant in comparison.variants]
    told = [line for line in columns[0] if not line.startswith(PASSED_OVER) or any(c[line] != "0" for c in columns)]
    columns = [{line: column[line] for line in told} for column in columns]
    overview = {"": list(columns[0])} | {
        variant.variant: list(column.values()) for variant, column in zip(comparison.variants, columns, strict=True)
    }
    return [overview, *(_target(comparison, target) for target in comparison.targets)]


def il_note(comparison: "Comparison") -> str:
    """How the IL model is charged; empty where none of the runs uses one."""
    outcomes = [outcome for variant in comparison.variants for outcome in variant.runs]
    if not any(outcome.seconds["il_train"] + outcome.seconds["il_score"] for outcome in outcomes):
        return ""
    if comparison.il_runs == 1:
        return "every run that uses the IL model is charged with the whole of it"
    return f"every run that uses the IL model is charged with 1/{comparison.il_runs} of it"


def _column(variant: "VariantOutcome") -> dict[str, str]:
    """What the overview says of one variant, line by line."""
    from rhostream.pipeline.comparison import spread

    outcomes, first = variant.runs, variant.runs[0]

    def over_seeds(figure: "Callable[[Outcome], float | None]", show: Callable[[float], str]) -> str:
        return show_spread(spread([figure(outcome) for outcome in outcomes]), show, "unknown")

    evaluated_on = first.evaluated_on or "no split to spare"
    if evaluated_on == "holdout":
        evaluated_on += " (the IL model has trained on it)"
    lines = {
        "steps": str(first.steps),
        "samples seen": over_seeds(lambda outcome: outcome.seen, whole),
        "samples trained on": over_seeds(lambda outcome: outcome.trained, whole),
        f"{first.measure} on": evaluated_on,
        f"final {first.measure}": show_spread(variant.final_accuracy, percent, "unknown"),
        **{
            f"final {words}": over_seeds(lambda outcome: outcome.final_qualities.get(words), percent)  # noqa: B023
            for words in first.final_qualities
            if words != first.measure
        },
        "mislabeled, of selected": over_seeds(lambda outcome: outcome.mislabeled, percent),
        "mislabeled, of candidates": over_seeds(lambda outcome: outcome.candidates_mislabeled, percent),
        "already correct, of selected": over_seeds(lambda outcome: outcome.correct, percent),
        "already correct, of candidates": over_seeds(lambda outcome: outcome.candidates_correct, percent),
    }
    if first.early is not None:
        until = f"up to {percent(first.early)} {first.measure}"
        lines[f"already correct, of selected, {until}"] = over_seeds(lambda outcome: outcome.early_correct, percent)
    for reason in first.passed_over:
        lines[f"{PASSED_OVER}{reason}"] = over_seeds(lambda outcome: outcome.passed_over[reason], whole)  # noqa: B023
    for cost in first.seconds:
        lines[f"cost: {cost}"] = ", ".join(f"{over_seeds(figure, show)} {unit}" for figure, show, unit in _units(cost))
    return lines


def _units(cost: str) -> "Sequence[tuple[Callable[[Outcome], float], Callable[[float], str], str]]":
    return (
        (lambda outcome: outcome.seconds[cost], seconds, "s"),
        (lambda outcome: outcome.cpu_seconds[cost], seconds, "CPU-s"),
        (lambda outcome: outcome.flops[cost], tera, "TFLOPs"),
    )


def _target(comparison: "Comparison", target: float) -> Table:
    variants = comparison.variants
    rows = [variant.reached[target] for variant in variants]
    table = {f"to {percent(target)} {comparison.measure}": [variant.variant for variant in variants]}
    for figure, title, show in (
        ("steps", "steps", whole),
        ("seen", "samples seen", whole),
        ("trained", "trained on", whole),
        ("seconds", "seconds", seconds),
        ("cpu_seconds", "CPU-seconds", seconds),
        ("flops", "TFLOPs", tera),
    ):
        table[title] = [show_spread(row[figure], show, "never") for row in rows]
    if comparison.il_runs > 1 and il_note(comparison):
        for figure, title, show in (
            ("seconds", "seconds", seconds),
            ("cpu_seconds", "CPU-seconds", seconds),
            ("flops", "TFLOPs", tera),
        ):
            table[f"{title}, whole IL"] = [show_spread(row[f"{figure}_whole_il"], show, "never") for row in rows]
    return table


def show_spread(spread: "Spread", show: Callable[[float], str], missing: str) -> str:
    """`median (lowest–highest)`, and how many runs have the figure where not all do."""
    low, middle, high = (
        missing if figure is None else show(figure) for figure in (spread.lowest, spread.median, spread.highest)
    )
    if spread.of == 1 or spread.known == 0:
        return middle
    return f"{middle} ({low}–{high})" + (f", {spread.known} of {spread.of}" if spread.known < spread.of else "")


def whole(number: float) -> str:
    return f"{number:.0f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def seconds(value: float) -> str:
    return f"{value:.1f}"


def tera(value: float) -> str:
    return f"{value / 1e12:.2f}"
