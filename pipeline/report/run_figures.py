"""The figures about runs: what was selected over time, what it brought, what it cost."""

from collections.abc import Sequence
from typing import Any, Final

from markupsafe import Markup

from rhostream.pipeline.comparison import RUN_COLORS
from rhostream.pipeline.report import charts
from rhostream.pipeline.report.charts import Series
from rhostream.pipeline.report.data import ReportData
from rhostream.pipeline.report.figures import Figure, table
from rhostream.pipeline.report.formatting import count, flops, number, percent, seconds
from rhostream.pipeline.report.runs import UNITS, ReportedRun, Unit, measure_of, spent
from rhostream.schema import COSTS

_MOST_POINTS: Final = 200  # of a curve
_AXES: Final[dict[Unit, str]] = {"steps": "gradient steps", "seconds": "seconds", "flops": "FLOPs"}
_COST_WORDS: Final = {
    "load": "loading",
    "score": "scoring",
    "auto": "validation of auto",
    "train": "training",
    "evaluate": "evaluation (not charged)",
    "il_train": "IL model, training",
    "il_score": "IL model, scoring",
}
_COST_COLORS: Final = dict(
    zip(COSTS, ("series1", "series2", "series6", "series0", "grid", "series3", "series4"), strict=True)
)


def over_time(data: ReportData) -> Figure | None:
    """None where no run has drawn a candidate."""
    if data.run is None or "time" not in data.answers:
        return None
    answer, run = data.answers["time"], data.run
    drawn = []
    for column, words, share in (
        ("mislabeled", "wrong labels", True),
        ("correct", "already predicted", True),
        ("il", "mean irreducible loss, nats", False),
        ("loss", "mean loss, nats", False),
    ):
        rows = run.lines if column == "mislabeled" else answer.rows
        x = "step" if column == "mislabeled" else "last_step"
        drawn += _selected_chart(column, words, share, [row[x] for row in rows], rows)
    return Figure(
        name="time",
        title="What was selected over time",
        says=f"What {run.name} selected, beside all the candidates that it selected from.",
        charts=tuple(drawn),
        legend=(("series0 dash0", "selected"), ("muted dash1", "all candidates")),
        table=table(
            (
                "steps",
                "IL, selected",
                "IL, candidates",
                "loss, selected",
                "loss, candidates",
                "already predicted, selected",
                "already predicted, candidates",
            ),
            [
                (
                    f"{row['first_step']} to {row['last_step']}",
                    number(row["selected_il"]),
                    number(row["candidates_il"]),
                    number(row["selected_loss"]),
                    number(row["candidates_loss"]),
                    percent(row["selected_correct"]),
                    percent(row["candidates_correct"]),
                )
                for row in answer.rows
            ],
        ),
        sql=answer.sql,
    )


def _selected_chart(
    column: str, words: str, share: bool, x: Sequence[float], rows: Sequence[dict[str, Any]]
) -> list[Markup]:
    series = [
        Series(label="all candidates", x=x, y=[row[f"candidates_{column}"] for row in rows], color="muted", dash=1),
        Series(label="selected", x=x, y=[row[f"selected_{column}"] for row in rows], color="series0"),
    ]
    known = [line for line in series if any(value is not None for value in line.y)]
    title = f"{words}, of the selected and of all candidates, over the steps".capitalize()
    return [charts.lines(f"time-{column}", title, known, x="step", y=words, share=share)] if known else []


def accuracy(data: ReportData) -> Figure | None:
    """None where no run has an accuracy."""
    runs = [run for run in data.runs if run.curve]
    if not runs:
        return None
    splits = sorted({str(run.evaluated_on or "held-out data") for run in runs})
    words = measure_of(runs)
    warning = " The IL model has trained on the holdout, the runs have not." if "holdout" in splits else ""
    return Figure(
        name="accuracy",
        title=f"{words.capitalize()}, and what it took",
        says=(
            f"{words.capitalize()} on {' and '.join(splits)}. Seconds and FLOPs hold all that a run is charged with: "
            f"loading, scoring, training and its share of the IL model; only evaluation, our measuring, is left out. "
            f"A curve begins after the IL model that it needed.{warning}"
        ),
        charts=tuple(
            charts.lines(
                f"accuracy-{unit}",
                f"{words.capitalize()} against {_AXES[unit]}",
                [
                    Series(
                        label=run.name,
                        x=[spent(line, unit) for line in _thinned(run.curve)],
                        y=[run.quality(line) for line in _thinned(run.curve)],
                        color=f"series{place % len(RUN_COLORS)}",
                        dash=place,
                    )
                    for place, run in enumerate(runs)
                ],
                x=_AXES[unit],
                y=words,
                share=True,
                flops=unit == "flops",
            )
            for unit in UNITS
        ),
        legend=tuple((f"series{place % len(RUN_COLORS)} dash{place % 4}", run.name) for place, run in enumerate(runs)),
        table=table(
            ("run", "steps", "seconds", "FLOPs", words),
            [
                (
                    run.name,
                    count(line["step"]),
                    seconds(spent(line, "seconds")),
                    flops(spent(line, "flops")),
                    f"{100 * (run.quality(line) or 0.0):.1f}%",
                )
                for run in runs
                for line in _thinned(run.curve)
            ],
        ),
        sql=data.answers["metrics"].sql,
    )


def _thinned(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most about `_MOST_POINTS` of them, the last among them."""
    step = max(1, len(lines) // _MOST_POINTS)
    return [*lines[:-1:step], lines[-1]]


def costs(data: ReportData) -> Figure | None:
    """None where no run has measured its costs."""
    runs = [run for run in data.runs if run.lines]
    if not runs:
        return None
    return Figure(
        name="costs",
        title="Costs",
        says="What each run cost from its first step to its last, by what it was spent on.",
        charts=tuple(
            charts.stacked_bars(
                f"costs-{unit}",
                f"Costs of the runs in {words}",
                [run.name for run in runs],
                [(_COST_COLORS[cost], [_cost(run, unit, cost) for run in runs]) for cost in COSTS],
                x=words,
            )
            for unit, words in (("seconds", "seconds"), ("flops", "FLOPs"))
        ),
        legend=tuple((_COST_COLORS[cost], _COST_WORDS[cost]) for cost in COSTS),
        table=table(
            ("run", "spent on", "seconds", "FLOPs"),
            [
                (run.name, _COST_WORDS[cost], seconds(_cost(run, "seconds", cost)), flops(_cost(run, "flops", cost)))
                for run in runs
                for cost in COSTS
            ],
            text=2,
        ),
        sql=data.answers["metrics"].sql,
    )


def _cost(run: ReportedRun, unit: str, cost: str) -> float:
    return float(run.lines[-1][f"{unit}_{cost}"] or 0.0)
