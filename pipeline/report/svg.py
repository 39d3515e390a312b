"""Matplotlib figures as SVG for a page: text as text, colors of the page's style sheet, the same bytes every time."""

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any, Final

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_SVG: Final = "http://www.w3.org/2000/svg"
_XLINK: Final = "http://www.w3.org/1999/xlink"
_POINTS: Final = 72.0  # an inch, which makes the SVG's units the pixels of the page

#: The colors of charts. Each stands for a variable of the page's style sheet, which knows light and dark.
COLORS: Final[dict[str, str]] = {
    "text": "#010101",
    "muted": "#020202",
    "grid": "#030303",
    "surface": "#040404",
    "redundant": "#050505",
    "learnable": "#060606",
    "noisy": "#070707",
    **{f"series{number}": f"#08{number:02x}08" for number in range(8)},
}
_VARIABLES: Final = {code: f"var(--{name})" for name, code in COLORS.items()}

_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.labelcolor": COLORS["muted"],
    "axes.edgecolor": COLORS["grid"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "grid.color": COLORS["grid"],
    "grid.linewidth": 0.6,
    "lines.linewidth": 2,
    "text.color": COLORS["text"],
    "text.parse_math": False,  # class names are the corpus's, a $ in them is a $
    "xtick.color": COLORS["grid"],
    "ytick.color": COLORS["grid"],
    "xtick.labelcolor": COLORS["text"],
    "ytick.labelcolor": COLORS["text"],
}


def render(name: str, title: str, width: int, height: int, paint: Callable[[Axes], None]) -> Markup:
    """The SVG element of one chart, which scales to the width that it is given.

    Args:
        name: unique in the page.
        title: what a screen reader says of it; the figures themselves belong into a table beside it.
        width, height: pixels at which the text has its natural size.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has the fonts, Matplotlib need not
        figure = Figure(figsize=(width / _POINTS, height / _POINTS), layout="constrained")
        paint(figure.add_subplot())
        buffer = io.BytesIO()
        figure.savefig(
            buffer, format="svg", dpi=_POINTS, metadata={"Date": None, "Creator": None, "Type": None, "Format": None}
        )
    return _inline(buffer.getvalue(), title)


def plain(text: str, most: int = 24) -> str:
    """Text of the corpus as a label: without control characters, and cut where it is long."""
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _inline(svg: bytes, title: str) -> Markup:
    root = ET.fromstring(svg)
    used = {reference for element in root.iter() for reference in _references(element)}
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        for attribute in ("style", "fill", "stroke"):
            if value := element.get(attribute):
                element.set(attribute, _themed(value))
        if element.tag != f"{{{_SVG}}}text":
            element.text = None  # the line breaks between elements
        element.tail = None
    for parent in list(root.iter()):
        # A style element would hold for the whole page; the page's own style sheet says the same.
        for child in [child for child in parent if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style")]:
            parent.remove(child)
    root.attrib = {"viewBox": root.get("viewBox", ""), "role": "img", "aria-label": title, "class": "chart"}
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    return Markup(ET.tostring(root, encoding="unicode"))


def _references(element: ET.Element) -> list[str]:
    values = " ".join(element.attrib.values())
    return [*re.findall(r"url\(#([^)]+)\)", values), element.get(f"{{{_XLINK}}}href", "").removeprefix("#")]


def _themed(style: str) -> str:
    """Our variables in place of Matplotlib's colors, and the page's fonts in place of its own."""
    for code, variable in _VARIABLES.items():
        style = style.replace(code, variable)
    return re.sub(r"font: *(?:\w+ +)*?([\d.]+)px [^;]*", r"font-size: \1px", re.sub(r"font-family:[^;]*;?", "", style))
