"""Charts of runs, as PNG."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rhostream.pipeline.comparison.curves import Band

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Okabe and Ito's palette, which color-blind readers can tell apart; its yellow is too pale for a line.
RUN_COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS: Final = "os^Dv<>PX"
_DASHES: Final = ("-", "--", ":", "-.")
#: A logarithmic axis where the run that took most took so many times as much as the one that took least.
LOG_FROM: Final = 4.0


def accuracy_chart(
    bands: Sequence[Band], targets: Sequence[float] = (), note: str = "", measure: str = "accuracy"
) -> bytes:
    """Test accuracy against steps, seconds, CPU-seconds and FLOPs: a line a variant, a band from worst to best seed.

    Args:
        targets: accuracies marked by thin lines.
        note: said below the title, for instance how the IL model is charged.
        measure: what the accuracy is, in words.

    Returns:
        A PNG.
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state; half a second

    shown = [band for band in bands if band.steps]
    figure = Figure(figsize=(11, 8.5), dpi=130, layout="constrained")
    first = figure.add_subplot(2, 2, 1)
    panels = [first, *(figure.add_subplot(2, 2, place, sharey=first) for place in (2, 3, 4))]
    columns: tuple[tuple[str, list[Sequence[float]], float], ...] = (
        ("gradient steps", [band.steps for band in shown], 1.0),
        ("wall-clock seconds", [band.costs["seconds"] for band in shown], 1.0),
        ("CPU-seconds", [band.costs["cpu_seconds"] for band in shown], 1.0),
        ("TFLOPs", [band.costs["flops"] for band in shown], 1e-12),
    )
    for panel, (label, values, scale) in zip(panels, columns, strict=True):
        _panel(panel, label, shown, [[scale * value for value in row] for row in values], targets)
    for panel in panels[::2]:
        panel.set_ylabel(f"test {measure}")
    figure.suptitle(f"Test {measure} against what it cost" + (f"\n{note}" if note else ""), fontsize=12)
    if shown:
        handles, names = first.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(3, len(shown)), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _panel(
    panel: "Axes", label: str, bands: Sequence[Band], values: Sequence[Sequence[float]], targets: Sequence[float]
) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter, StrMethodFormatter

    for target in targets:
        panel.axhline(target, color="0.7", linewidth=0.8, zorder=0)
        where = panel.get_yaxis_transform()
        panel.text(1.005, target, f"{100 * target:.1f}%", transform=where, color="0.4", size=7, va="center")
    for number, (band, at) in enumerate(zip(bands, values, strict=True)):
        color, dashes = RUN_COLORS[number % len(RUN_COLORS)], _DASHES[number // len(RUN_COLORS) % len(_DASHES)]
        panel.plot(
            at,
            band.accuracy,
            label=band.name,
            color=color,
            linestyle=dashes,
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=4,
            markevery=max(1, len(at) // 10),
            linewidth=1.6,
        )
        panel.fill_between(at, band.lowest, band.highest, color=color, alpha=0.18, linewidth=0)
    ends = [at[-1] for at in values]
    if ends and min(ends) > 0 and max(ends) >= LOG_FROM * min(ends):
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        label += " (log scale)"
    else:
        panel.set_xlim(left=0)
    panel.set_xlabel(label)
    panel.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    panel.grid(visible=True, color="0.93", linewidth=0.8)
    panel.spines[["top", "right"]].set_visible(False)
