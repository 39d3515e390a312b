"""The kinds of charts in the report, each an SVG; what they show is chosen in `figures`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.ticker import EngFormatter, PercentFormatter

from rhostream.pipeline.report.svg import COLORS, plain, render

_DASHES: Final = ("-", (0, (5, 2)), (0, (1, 1.6)), (0, (7, 2, 1.5, 2)))
_BAR_PIXELS: Final = 19  # a row of a bar chart
_WIDTH: Final = 360  # pixels: that of a phone


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line of a chart, its color (a name in `svg.COLORS`), and the number of its dash pattern."""

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    color: str
    dash: int = 0


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A rectangle of a map: its corners in data units, its color, and how much of that, in [0, 1]."""

    left: float
    bottom: float
    right: float
    top: float
    color: str
    strength: float


def lines(
    name: str, title: str, series: Sequence[Series], *, x: str, y: str, share: bool = False, flops: bool = False
) -> Markup:
    """Lines over a common axis.

    Args:
        x, y: what the axes show.
        share: are the values of y shares, to be written as percentages?
        flops: are those of x so large that they need prefixes?
    """

    def paint(axes: Axes) -> None:
        for line in series:
            known = [(a, b) for a, b in zip(line.x, line.y, strict=True) if b is not None]
            style = _DASHES[line.dash % len(_DASHES)]
            marker = "o" if len(known) == 1 else ""
            axes.plot(*zip(*known, strict=True), color=COLORS[line.color], linestyle=style, marker=marker)
        _axes(axes, x, y)
        if share:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        if flops:
            axes.xaxis.set_major_formatter(EngFormatter())

    return render(name, title, _WIDTH, 230, paint)


def stacked_histogram(
    name: str, title: str, edges: Sequence[float], parts: Sequence[tuple[str, Sequence[int]]], *, x: str, y: str
) -> Markup:
    """Bars on top of each other.

    Args:
        edges: of the bins, one more than there are bins.
        parts: (color, count of every bin), lowest first.
    """

    def paint(axes: Axes) -> None:
        bottom = [0] * (len(edges) - 1)
        width = edges[1] - edges[0]
        for color, counts in parts:
            axes.bar(edges[:-1], counts, width=width * 0.9, bottom=bottom, align="edge", color=COLORS[color])
            bottom = [a + b for a, b in zip(bottom, counts, strict=True)]
        _axes(axes, x, y)
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))

    return render(name, title, _WIDTH, 230, paint)


def bars(
    name: str,
    title: str,
    labels: Sequence[str],
    values: Sequence[float],
    *,
    x: str,
    colors: Sequence[str],
    share: bool = False,
    line: float | None = None,
    marks: Sequence[float | None] = (),
) -> Markup:
    """Horizontal bars, the first on top.

    Args:
        colors: of the bars, or one for all.
        share: are the values shares, to be written as percentages?
        line: a value to compare all bars with.
        marks: a further value of each bar, as a dot.
    """

    def paint(axes: Axes) -> None:
        places = range(len(values))
        axes.barh(places, values, height=0.68, color=[COLORS[color] for color in colors])
        if line is not None:
            axes.axvline(line, color=COLORS["text"], linewidth=1, linestyle=_DASHES[1])
        dots = [(mark, place) for place, mark in zip(places, marks, strict=False) if mark is not None]
        if dots:
            axes.plot(
                *zip(*dots, strict=True),
                "o",
                markersize=5,
                markeredgewidth=1.2,
                color=COLORS["text"],
                markerfacecolor=COLORS["surface"],
            )
        _rows(axes, labels, x)
        if share:
            axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))

    return render(name, title, _WIDTH, 52 + _BAR_PIXELS * len(values), paint)


def stacked_bars(
    name: str, title: str, labels: Sequence[str], parts: Sequence[tuple[str, Sequence[float]]], *, x: str
) -> Markup:
    """A horizontal bar for each label, made of parts: (color, value of every bar)."""

    def paint(axes: Axes) -> None:
        left = [0.0] * len(labels)
        for color, values in parts:
            axes.barh(range(len(labels)), values, left=left, height=0.68, color=COLORS[color])
            left = [a + b for a, b in zip(left, values, strict=True)]
        _rows(axes, labels, x)
        axes.xaxis.set_major_formatter(EngFormatter())

    return render(name, title, _WIDTH, 52 + 26 * len(labels), paint)


def region_map(name: str, title: str, cells: Sequence[Cell], *, x: str, y: str, bar: float | None) -> Markup:
    """Cells over two losses, and the line on which y - x is the bar."""

    def paint(axes: Axes) -> None:
        _add_cells(axes, cells)
        axes.autoscale()
        if bar is not None:
            limits = axes.get_xlim(), axes.get_ylim()
            ends = limits[0]
            axes.plot(ends, [end + bar for end in ends], color=COLORS["text"], linewidth=1.2, linestyle=_DASHES[1])
            axes.set_xlim(limits[0])
            axes.set_ylim(limits[1])
        _axes(axes, x, y)

    return render(name, title, _WIDTH + 60, 320, paint)


def matrix(
    name: str, title: str, rows: Sequence[str], columns: Sequence[str], cells: Sequence[Cell], *, x: str, y: str
) -> Markup:
    """Cells in rows (the first on top) and columns with labels; cell (row, column) spans [column, column + 1]."""

    def paint(axes: Axes) -> None:
        _add_cells(axes, cells)
        axes.set_xlim(0, len(columns))
        axes.set_ylim(len(rows), 0)
        axes.set_xticks(
            [place + 0.5 for place in range(len(columns))], [plain(label, 14) for label in columns], rotation=90
        )
        axes.set_yticks([place + 0.5 for place in range(len(rows))], [plain(label, 14) for label in rows])
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set_xlabel(x)
        axes.set_ylabel(y)

    return render(name, title, _WIDTH + 60, 130 + 20 * len(rows), paint)


def _add_cells(axes: Axes, cells: Sequence[Cell]) -> None:
    for color in sorted({cell.color for cell in cells}):
        own = [cell for cell in cells if cell.color == color]
        corners = [[(c.left, c.bottom), (c.right, c.bottom), (c.right, c.top), (c.left, c.top)] for c in own]
        strengths: Any = [cell.strength for cell in own]
        axes.add_collection(
            PolyCollection(corners, facecolors=COLORS[color], alpha=strengths, edgecolors="none", linewidths=0)
        )


def _axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.locator_params(nbins=5)
    axes.tick_params(length=0)


def _rows(axes: Axes, labels: Sequence[str], x: str) -> None:
    axes.set_yticks(range(len(labels)), [plain(label, 20) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(x)
    axes.tick_params(length=0)
    axes.grid(visible=False, axis="y")
    axes.spines.left.set_visible(False)
