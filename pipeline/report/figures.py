"""The figures about samples: charts, each with its legend, a table of the same values, and the SQL behind it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log1p
from typing import Any, Final

from markupsafe import Markup

from rhostream.pipeline.explain import REASONS
from rhostream.pipeline.report import charts, questions
from rhostream.pipeline.report.charts import Cell
from rhostream.pipeline.report.data import ReportData
from rhostream.pipeline.report.formatting import count, number, percent

_MOST_BARS: Final = 30
_MOST_ROWS: Final = 200  # of a table beside a chart
_MATRIX: Final = 14  # classes a side
_FAINTEST: Final = 0.12

REGION_WORDS: Final = {
    "redundant": "redundant: already learnt",
    "learnable": "learnable: selected, or outbid by others",
    "noisy": "noisy: likely mislabeled, less relevant or not learnable so far",
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of texts.

    Attributes:
        numeric: which columns are figures, to be aligned at the right.
        left_out: rows that are not shown.
    """

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    numeric: tuple[bool, ...]
    left_out: int = 0


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Charts with what belongs to them.

    Attributes:
        name: unique in the page.
        says: how to read it, in a sentence or two.
        legend: (color, words).
    """

    name: str
    title: str
    says: str
    charts: tuple[Markup, ...]
    table: Table
    sql: str
    legend: tuple[tuple[str, str], ...] = field(default=())


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], text: int = 1) -> Table:
    """A table whose first `text` columns are words and the others figures, cut at `_MOST_ROWS`."""
    shown = [tuple(row) for row in rows[:_MOST_ROWS]]
    numeric = tuple(place >= text for place in range(len(columns)))
    return Table(columns=tuple(columns), rows=shown, numeric=numeric, left_out=len(rows) - len(shown))


def loss_il_map(data: ReportData) -> Figure | None:
    """None where no run has scored its candidates against irreducible losses."""
    answer = data.answers.get("map")
    if answer is None or not answer.rows or data.run is None:
        return None
    bounds = answer.rows[0]
    width = (bounds["il_to"] - bounds["il_from"]) / questions.COLUMNS
    height = (bounds["loss_to"] - bounds["loss_from"]) / questions.ROWS
    totals = {region: sum(row[region] for row in answer.rows) for region in questions.REGIONS}
    most = max(max(row[region] for region in totals) for row in answer.rows)
    cells = []
    for row in answer.rows:
        region = max(totals, key=lambda name: row[name])
        if row[region]:
            left, bottom = bounds["il_from"] + row["x"] * width, bounds["loss_from"] + row["y"] * height
            strength = _FAINTEST + (1 - _FAINTEST) * log1p(row[region]) / log1p(most)
            cells.append(
                Cell(left=left, right=left + width, bottom=bottom, top=bottom + height, color=region, strength=strength)
            )
    whole = sum(totals.values())
    return Figure(
        name="map",
        title="Loss against irreducible loss",
        says=(
            f"Every sample that {data.run.name} scored, by its latest loss and by its irreducible loss (IL), in nats. "
            "A cell has the color of the region with most of its samples; the stronger it is, the more there are. "
            f"Above the dashed line the loss exceeds the IL by more than the bar of {number(bounds['bar'])} nats: what "
            "was selected last mostly lies there. The outermost cells hold all that lies beyond them."
        ),
        charts=(
            charts.region_map(
                "map-chart",
                f"Map of loss against irreducible loss: {_shares(totals)}",
                cells,
                x="irreducible loss, nats",
                y="latest loss, nats",
                bar=bounds["bar"],
            ),
        ),
        legend=tuple((region, f"{REGION_WORDS[region]}, {percent(totals[region] / whole)}") for region in totals),
        table=table(
            ("region", "samples", "share"),
            [(REGION_WORDS[region], count(total), percent(total / whole)) for region, total in totals.items()],
        ),
        sql=answer.sql,
    )


def _shares(totals: dict[str, int]) -> str:
    whole = sum(totals.values())
    return ", ".join(f"{percent(total / whole)} {name}" for name, total in totals.items())


def reasons(data: ReportData) -> Figure | None:
    """None where there is no run."""
    answer = data.answers["reasons"]
    if data.run is None or not answer.rows:
        return None
    whole = sum(row["samples"] for row in answer.rows)
    labels = [row["reason"].replace("_", " ") for row in answer.rows]
    return Figure(
        name="reasons",
        title="What became of the training samples",
        says=f"Each training sample counts once, under the first reason that fits it in the run {data.run.name}.",
        charts=(
            charts.bars(
                "reasons-chart",
                "Training samples by reason",
                labels,
                [row["samples"] / whole for row in answer.rows],
                x="share of the training samples",
                colors=[_region_of(row["reason"]) for row in answer.rows],
                share=True,
            ),
        ),
        table=table(
            ("reason", "meaning", "samples", "share"),
            [
                (label, REASONS.get(row["reason"], ""), count(row["samples"]), percent(row["samples"] / whole))
                for label, row in zip(labels, answer.rows, strict=True)
            ],
            text=2,
        ),
        sql=answer.sql,
    )


def _region_of(reason: str) -> str:
    return next((region for region, reasons in questions.REGIONS.items() if reason in reasons), "muted")


#: Of the histogram: what its two parts are, in its legend and as columns of its table.
_PARTS: Final = {
    "labels": (
        ("the IL model predicts the given label", "it predicts another class"),
        ("label predicted", "another predicted"),
    ),
    "pairs": (
        ("the caption fits", "a quarter of all other captions fit better"),
        ("caption fits", "caption contradicted"),
    ),
}


def il_histogram(data: ReportData) -> Figure | None:
    """None where there is no IL table."""
    answer = data.answers["histogram"]
    if not answer.rows:
        return None
    first = answer.rows[0]
    bins = {row["bin"]: row for row in answer.rows}
    width = (first["il_to"] - first["il_from"]) / questions.HISTOGRAM_BINS
    edges = [first["il_from"] + place * width for place in range(questions.HISTOGRAM_BINS + 1)]
    agrees, differs = (
        [bins[place][name] if place in bins else 0 for place in range(questions.HISTOGRAM_BINS)]
        for name in ("agrees", "differs")
    )
    known = data.il_model is not None and data.corpus.task != "multi_label"
    parts = _PARTS["pairs" if data.corpus.task == "pairs" else "labels"]
    return Figure(
        name="histogram",
        title="Irreducible losses",
        says="How hard a model that never saw them finds the training samples. The last bar holds all beyond it.",
        charts=(
            charts.stacked_histogram(
                "histogram-chart",
                "Histogram of the irreducible losses",
                edges,
                [("learnable", agrees), ("noisy", differs)] if known else [("series0", differs)],
                x="irreducible loss, nats",
                y="training samples",
            ),
        ),
        legend=tuple(zip(("learnable", "noisy"), parts[0], strict=True)) if known else (),
        table=table(
            ("from, nats", "to, nats", *(parts[1] if known else ("samples",))),
            [
                (
                    number(edges[place]),
                    number(edges[place + 1]),
                    *((count(agrees[place]), count(differs[place])) if known else (count(differs[place]),)),
                )
                for place in range(questions.HISTOGRAM_BINS)
            ],
            text=0,
        ),
        sql=answer.sql,
    )


def classes(data: ReportData) -> Figure | None:
    """None where nothing is known of any class but its size, and of pairs without clusters, which stand for classes."""
    of_pairs = data.corpus.task == "pairs"
    if of_pairs and data.clustering is None:
        return None
    answer = data.answers["classes"]
    selecting = any(row["drawn"] for row in answer.rows)
    judging = any(row["judged"] for row in answer.rows)
    if not (selecting or judging):
        return None
    drawn = []
    if judging:
        drawn.append(_noise_chart(data, [row for row in answer.rows if row["judged"]]))
    if selecting:
        drawn.append(_rate_chart([row for row in answer.rows if row["drawn"]]))
    says = []
    if judging and of_pairs:
        says.append(
            f"Clusters {data.clustering}: of like pairs. A caption is contradicted where the reference model finds a "
            "quarter of the other captions more like the image."
            + (" The dots are the shares that really are wrong." if data.truth else "")
        )
    elif judging:
        says.append(
            "A label is predicted where the IL model, which never saw the sample, gives it, too; it is contradicted "
            "where the model is sure of another class (by the threshold of that class) and finds the label less likely "
            "than blind chance." + (" The dots are the shares that really are wrong." if data.truth else "")
        )
    if selecting and data.run is not None:
        says.append(
            f"The selection rate is that of {data.run.name}: selected by drawn. The dashed line is the whole run's."
        )
    return Figure(
        name="classes",
        title=f"{'Clusters' if of_pairs else 'Classes'}: noise and selection",
        says=" ".join(says),
        charts=tuple(drawn),
        table=class_table(data),
        sql=answer.sql,
    )


def class_table(data: ReportData) -> Table:
    """All that is known of each class, in columns."""
    judged, of_pairs = data.corpus.task != "multi_label", data.corpus.task == "pairs"
    columns = [
        "cluster" if of_pairs else "class",
        "samples",
        *(["caption found" if of_pairs else "predicted", "contradicted"] if judged else []),
        *(["really wrong"] if data.truth else []),
    ]
    columns += ["drawn", "selected", "selection rate", "never selected"] if data.run is not None else []
    rows = []
    for row in data.answers["classes"].rows:
        values = [row["class"], count(row["samples"])]
        values += [percent(_share(row, part, "judged")) for part in ("agreed", "contradicted")] if judged else []
        values += [percent(_share(row, "wrong", "truth_known"))] if data.truth else []
        if data.run is not None:
            values += [count(row["drawn"]), count(row["selected"]), percent(row["selection_rate"])]
            values += [count(row["never_selected"])]
        rows.append(values)
    return table(columns, rows)


def _noise_chart(data: ReportData, rows: list[dict[str, Any]]) -> Markup:
    ranked = sorted(rows, key=lambda row: (-(_share(row, "contradicted", "judged") or 0), row["class"]))[:_MOST_BARS]
    return charts.bars(
        "classes-noise",
        f"Share of contradicted labels by class, highest first: {ranked[0]['class']}",
        [row["class"] for row in ranked],
        [_share(row, "contradicted", "judged") or 0.0 for row in ranked],
        x=_most("contradicted labels", rows),
        colors=("noisy",),
        share=True,
        marks=[_share(row, "wrong", "truth_known") for row in ranked],
    )


def _rate_chart(rows: list[dict[str, Any]]) -> Markup:
    ranked = sorted(rows, key=lambda row: (row["selection_rate"], row["class"]))[:_MOST_BARS]
    return charts.bars(
        "classes-rate",
        f"Selection rate by class, lowest first: {ranked[0]['class']}",
        [row["class"] for row in ranked],
        [row["selection_rate"] for row in ranked],
        x=_most("selection rate", rows),
        colors=("learnable",),
        share=True,
        line=sum(row["selected"] for row in rows) / sum(row["drawn"] for row in rows),
    )


def _most(what: str, rows: Sequence[object]) -> str:
    return what if len(rows) <= _MOST_BARS else f"{what} ({_MOST_BARS} of {len(rows)} classes)"


def _share(row: dict[str, Any], part: str, whole: str) -> float | None:
    return row[part] / row[whole] if row[whole] else None


def confusion(data: ReportData) -> Figure | None:
    """None where no IL model has predicted another class than the given one."""
    answer = data.answers.get("confusion")
    if answer is None or not answer.rows:
        return None
    weight = dict.fromkeys(data.corpus.classes, 0.0)
    for row in answer.rows:
        for side in ("given", "predicted"):
            weight[_class(row[side])] = weight.get(_class(row[side]), 0.0) + row["il"]
    chosen = sorted(sorted(weight), key=lambda name: -weight[name])[:_MATRIX]
    chosen = [name for name in weight if name in chosen]  # in the order of the labels
    place = {name: position for position, name in enumerate(chosen)}
    shown = [row for row in answer.rows if _class(row["given"]) in place and _class(row["predicted"]) in place]
    most = max((row["il"] for row in shown), default=1.0)
    cells = [
        Cell(
            left=place[_class(row["predicted"])],
            right=place[_class(row["predicted"])] + 1,
            bottom=place[_class(row["given"])],
            top=place[_class(row["given"])] + 1,
            color="noisy",
            strength=max(0.0, row["il"] / most) if most > 0 else 0.0,
        )
        for row in shown
    ]
    return Figure(
        name="confusion",
        title="Given and predicted labels",
        says=(
            "Where the IL model predicts another class than the given one. Each sample weighs as much as its "
            "irreducible loss, so that firm contradictions count more than near ties."
            + (f" The {_MATRIX} classes with most of it." if len(weight) > _MATRIX else "")
        ),
        charts=(
            charts.matrix(
                "confusion-chart",
                "Matrix of given and predicted labels, weighted by irreducible loss",
                chosen,
                chosen,
                cells,
                x="predicted",
                y="given",
            ),
        ),
        table=table(
            ("given", "predicted", "samples", "IL in all, nats"),
            [
                (row["given"], _class(row["predicted"]), count(row["samples"]), number(row["il"], 0))
                for row in answer.rows
            ],
            text=2,
        ),
        sql=answer.sql,
    )


def _class(name: str | None) -> str:
    return "?" if name is None else name
