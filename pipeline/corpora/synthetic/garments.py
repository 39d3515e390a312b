"""Procedurally drawn garments: fourteen cuts told apart by sleeves, collar, closure and hem, never by color."""

import math
import random
from collections.abc import Callable
from typing import Final

from rhostream.pipeline.corpora.synthetic.pen import Color, Pen, Point


def _sleeve(pen: Pen, length: float, *, wide: float = 0.2, end: float = 0.15, fill: Color | None = None) -> None:
    """Both sleeves, from the shoulder: `length` along the arm, `wide` there and `end` at the wrist."""
    pen.both(_across(pen, 0.0, length, wide, end), fill or pen.main)
    pen.lines(_across(pen, 0.12, length, wide, end)[2:], pen.dark, 0.02)


def _cuff(pen: Pen, length: float, fill: Color, *, depth: float = 0.1, end: float = 0.17) -> None:
    pen.both(_across(pen, length - depth, length, end, end), fill)


def _across(pen: Pen, start: float, stop: float, wide: float, end: float) -> list[Point]:
    """The four corners of a piece of the right sleeve: upper edge from `start` to `stop`, then back below."""
    u, v = math.cos(math.radians(pen.arms)), math.sin(math.radians(pen.arms))
    corners = ((start, 0.0), (stop, 0.0), (stop, end), (start, wide))
    return [(0.36 + u * along - v * below, -0.52 + v * along + u * below) for along, below in corners]


def _torso(pen: Pen, hem: float = 0.6, *, waist: float = 0.37, base: float = 0.4, shoulder: float = 0.4) -> None:
    pen.both(
        [(0, -0.6), (0.15, -0.6), (shoulder, -0.52), (0.37, -0.15), (waist, 0.15), (base, hem), (0, hem)], pen.main
    )


def _neckline(pen: Pen, depth: float, fill: Color, *, width: float = 0.15, rim: Color | None = None) -> None:
    """A round neck of `depth`; with a `rim` a ribbed one."""
    curve = [(width * math.cos(t), -0.61 + depth * math.sin(t)) for t in (0.0, 0.6, 1.2, 1.57, 1.94, 2.54, math.pi)]
    if rim:
        pen.line(curve, rim, 0.07)
    pen.area(curve, fill)


def _stripes(pen: Pen, rng: random.Random, hem: float, *, likely: float = 0.35) -> None:
    """Prints and stripes occur on every plain garment: they tell nothing about its class."""
    kind = rng.random()
    if pen.pattern:
        kind = {"striped": 0.0, "dotted": 1.0, "plain": 1.0}[pen.pattern]
    if pen.pattern == "dotted":
        for k in range(12):
            pen.dot((-0.27 + 0.18 * (k % 4), -0.3 + 0.25 * (k // 4)), rng.uniform(0.05, 0.07), pen.accent)
    elif kind < likely * 0.6:
        gap = rng.uniform(0.1, 0.2)
        for k in range(int((hem + 0.3) / gap)):
            pen.line([(-0.35, -0.25 + k * gap), (0.35, -0.25 + k * gap)], pen.accent, rng.uniform(0.03, 0.06))
    elif kind < likely:
        radius = rng.uniform(0.08, 0.18)
        pen.dot((rng.uniform(-0.1, 0.1), rng.uniform(-0.15, 0.1)), radius, pen.accent)


def _buttons(pen: Pen, top: float, bottom: float, count: int, fill: Color, *, u: float = 0.0) -> None:
    for k in range(count):
        pen.dot((u, top + (bottom - top) * k / max(1, count - 1)), 0.032, fill)


def _ribs(pen: Pen, hem: float, fill: Color) -> None:
    for k in range(-4, 5):
        pen.line([(k * 0.085, hem - 0.1), (k * 0.085, hem)], fill, 0.02)


def _t_shirt(pen: Pen, rng: random.Random) -> None:
    short = rng.uniform(0.28, 0.4)
    _sleeve(pen, 0.92 if pen.sleeves == "long" else short, end=0.2)
    _torso(pen)
    _stripes(pen, rng, 0.6)
    _neckline(pen, rng.uniform(0.08, 0.14), pen.dark, rim=pen.light if rng.random() < 0.5 else None)


def _shirt(pen: Pen, rng: random.Random) -> None:
    long = rng.random() < 0.75
    if pen.sleeves:
        long = pen.sleeves == "long"
    _sleeve(pen, 0.95 if long else 0.42, end=0.14 if long else 0.2)
    if long:
        _cuff(pen, 0.95, pen.light, end=0.15)
    _torso(pen, 0.64)
    _stripes(pen, rng, 0.6, likely=0.3)
    pen.line([(0, -0.5), (0, 0.64)], pen.dark, 0.03)
    _buttons(pen, -0.35, 0.5, 6, pen.light)
    pen.area([(-0.1, -0.62), (0.1, -0.62), (0, -0.48)], pen.dark)
    pen.both([(0, -0.5), (0.14, -0.66), (0.2, -0.52), (0.1, -0.38)], pen.light)
    if rng.random() < 0.6:
        pen.line([(0.12, -0.1), (0.28, -0.1), (0.28, 0.06), (0.12, 0.06), (0.12, -0.1)], pen.dark, 0.02)


def _knitwear(pen: Pen, rng: random.Random) -> None:
    _sleeve(pen, 0.9, wide=0.22, end=0.18)
    _torso(pen, 0.58, base=0.38)
    gap = rng.uniform(0.13, 0.17)
    for k in range(-2, 3):
        cable = [(k * gap + (0.035 if j % 2 else -0.035), -0.4 + j * 0.1) for j in range(10)]
        pen.line(cable, pen.dark if rng.random() < 0.9 else pen.light, 0.035)
    pen.area([(-0.15, -0.62), (0.15, -0.62), (0, rng.uniform(-0.4, -0.25))], pen.dark)


def _chiffon(pen: Pen, rng: random.Random) -> None:
    _sleeve(pen, rng.uniform(0.55, 0.75), wide=0.18, end=rng.uniform(0.34, 0.42))
    _torso(pen, 0.52, waist=0.4, base=0.5)
    for k in range(7):
        pen.dot((-0.45 + k * 0.15, 0.54), 0.09, pen.main)
        pen.line([(-0.36 + k * 0.12, 0.2), (-0.45 + k * 0.15, 0.58)], pen.light, 0.02)
    _neckline(pen, 0.1, pen.dark)
    pen.both([(0, -0.46), (0.17, -0.58), (0.19, -0.38)], pen.accent)
    pen.lines([(0, -0.46), (0.09, -0.1)], pen.accent, 0.04)


def _sweater(pen: Pen, rng: random.Random) -> None:
    _sleeve(pen, 0.92, wide=0.24, end=0.18)
    _torso(pen, 0.56, waist=0.4, base=0.4)
    _stripes(pen, rng, 0.4, likely=0.45)
    _cuff(pen, 0.94, pen.dark, end=0.19)
    pen.area([(-0.4, 0.46), (0.4, 0.46), (0.36, 0.6), (-0.36, 0.6)], pen.dark)
    _ribs(pen, 0.58, pen.light)
    if rng.random() < 0.4:
        pen.area([(-0.14, -0.74), (0.14, -0.74), (0.17, -0.55), (-0.17, -0.55)], pen.light)
    else:
        _neckline(pen, 0.08, pen.dark, rim=pen.light)


def _hood(pen: Pen, rng: random.Random) -> None:
    top = rng.uniform(-0.98, -0.9)
    pen.both([(0, top), (0.2, top + 0.06), (0.29, -0.72), (0.24, -0.48), (0, -0.42)], pen.main)
    pen.both([(0, top + 0.12), (0.12, top + 0.16), (0.16, -0.7), (0.08, -0.5), (0, -0.46)], pen.dark)


def _hoodie(pen: Pen, rng: random.Random) -> None:
    _sleeve(pen, 0.93, wide=0.23, end=0.17)
    _torso(pen, 0.58, waist=0.4)
    _stripes(pen, rng, 0.1, likely=0.25)
    _cuff(pen, 0.94, pen.dark)
    _hood(pen, rng)
    pen.both([(0, 0.12), (0.17, 0.12), (0.28, 0.34), (0.28, 0.45), (0, 0.45)], pen.dark)
    pen.lines([(0.07, -0.45), (0.08, rng.uniform(-0.25, -0.12))], pen.light, 0.035)
    if rng.random() < 0.3:
        pen.line([(0, -0.45), (0, 0.58)], pen.light, 0.03)


def _windbreaker(pen: Pen, rng: random.Random) -> None:
    _sleeve(pen, 0.95, wide=0.25, end=0.15)
    _torso(pen, 0.55, waist=0.42, base=0.36)
    low = rng.uniform(-0.26, -0.12)
    pen.both([(0, low - 0.1), (0, -0.6), (0.15, -0.6), (0.4, -0.52), (0.38, low + 0.08)], pen.accent)
    pen.both(_across(pen, 0.0, 0.3, 0.25, 0.22), pen.accent)
    pen.area([(-0.15, -0.76), (0.15, -0.76), (0.18, -0.54), (-0.18, -0.54)], pen.accent)
    pen.line([(0, -0.74), (0, 0.55)], pen.dark, 0.045)
    pen.lines([(0.12, 0.42), (0.26, 0.16)], pen.dark, 0.03)


def _jacket(pen: Pen, rng: random.Random) -> None:
    _sleeve(pen, 0.93, wide=0.22, end=0.15)
    _torso(pen, 0.44, waist=0.4, base=0.38)
    pen.area([(-0.39, 0.34), (0.39, 0.34), (0.37, 0.48), (-0.37, 0.48)], pen.dark)
    pen.both([(0.1, -0.26), (0.3, -0.26), (0.3, -0.16), (0.2, -0.1), (0.1, -0.16)], pen.dark)
    pen.area([(-0.1, -0.62), (0.1, -0.62), (0, -0.38)], pen.dark)
    pen.both([(0.02, -0.36), (0.13, -0.68), (0.3, -0.5), (0.16, -0.32)], pen.light)
    pen.line([(0, -0.38), (0, 0.46)], pen.light if rng.random() < 0.5 else pen.dark, 0.04)
    if rng.random() < 0.5:
        _buttons(pen, -0.22, 0.4, 5, pen.accent, u=0.05)


def _downcoat(pen: Pen, rng: random.Random) -> None:
    hem, gap = rng.uniform(0.7, 0.85), rng.uniform(0.15, 0.19)
    _sleeve(pen, 0.95, wide=0.3, end=0.24)
    _torso(pen, hem, waist=0.45, base=0.46, shoulder=0.42)
    rows = int((hem + 0.5) / gap)
    for k in range(rows):
        v = -0.46 + k * gap
        pen.lines([(0, v), (0.22, v + 0.03), (0.43, v)], pen.dark, 0.035)
        pen.lines([(0.04, v + 0.06), (0.34, v + 0.06)], pen.light, 0.035)
        pen.both([(0.38, v), (0.49, v + gap / 2), (0.4, v + gap)], pen.main)
    for k in range(1, 5):
        pen.lines(_across(pen, k * 0.2, k * 0.2, 0.27, 0.27)[1:3], pen.dark, 0.035)
    if rng.random() < 0.5:
        _hood(pen, rng)
    pen.line([(0, -0.5), (0, hem)], pen.dark, 0.045)


def _suit(pen: Pen, rng: random.Random) -> None:
    _sleeve(pen, 0.95, wide=0.2, end=0.14)
    _torso(pen, 0.68, waist=0.35, base=0.41)
    low = rng.uniform(-0.08, 0.1)
    pen.area([(-0.14, -0.62), (0.14, -0.62), (0, low)], (238, 238, 240))
    pen.area([(-0.04, -0.58), (0.04, -0.58), (0.05, low - 0.14), (0, low - 0.04), (-0.05, low - 0.14)], pen.accent)
    pen.both([(0, low + 0.03), (0.12, -0.62), (0.25, -0.42), (0.17, -0.34), (0.2, -0.28)], pen.dark)
    pen.line([(0, low), (0.02, 0.68)], pen.dark, 0.025)
    _buttons(pen, low + 0.1, low + 0.26, rng.choice((1, 2)), pen.light)
    pen.lines([(0.15, 0.34), (0.32, 0.3)], pen.dark, 0.04)


def _shawl(pen: Pen, rng: random.Random) -> None:
    low, wide = rng.uniform(0.4, 0.6), rng.uniform(0.75, 0.88)
    edge = [(0.0, low), (wide * 0.5, low * 0.72), (wide, rng.uniform(0.1, 0.3))]
    pen.both([(0, -0.6), (0.16, -0.58), (0.42, -0.42), *reversed(edge)], pen.main)
    for k in range(13):
        u = wide * (k - 6) / 6.2
        v = low - (low - 0.2) * abs(u) / wide
        pen.line([(u, v - 0.04), (u * 1.02, v + 0.17)], pen.light, 0.025)
    for k in range(rng.choice((1, 2, 3))):
        pen.lines([(0.04 + 0.12 * k, -0.5), (wide * (0.3 + 0.2 * k), low * 0.5)], pen.dark, 0.03)
    _neckline(pen, rng.uniform(0.1, 0.2), pen.dark, width=0.13)


def _dress(pen: Pen, rng: random.Random) -> None:
    flare, waist = rng.uniform(0.48, 0.7), rng.uniform(-0.02, 0.1)
    if (rng.random() < 0.5 or pen.sleeves == "short") and pen.sleeves != "long":
        _sleeve(pen, 0.26, wide=0.18, end=0.18)
    if pen.sleeves == "long":
        _sleeve(pen, 0.92, wide=0.18, end=0.14)
    pen.both([(0, -0.6), (0.15, -0.6), (0.33, -0.54), (0.3, -0.25), (0.22, waist), (0, waist)], pen.main)
    pen.both([(0, waist), (0.22, waist), (flare, 0.88), (0, 0.92)], pen.main)
    for k in (0.25, 0.55, 0.85):
        pen.lines([(0.2 * k, waist + 0.08), (flare * k, 0.86)], pen.dark, 0.02)
    pen.area([(-0.23, waist - 0.04), (0.23, waist - 0.04), (0.23, waist + 0.05), (-0.23, waist + 0.05)], pen.accent)
    if pen.pattern:
        _stripes(pen, rng, 0.4)
    _neckline(pen, rng.uniform(0.1, 0.22), pen.dark)


def _vest(pen: Pen, rng: random.Random) -> None:
    hem, low = rng.uniform(0.4, 0.55), rng.uniform(-0.2, -0.05)
    pen.both(
        [
            (0, hem - 0.06),
            (0, -0.6),
            (0.12, -0.62),
            (0.29, -0.56),
            (0.26, -0.3),
            (0.36, -0.12),
            (0.33, hem - 0.05),
            (0.14, hem + 0.1),
        ],
        pen.main,
    )
    pen.area([(-0.13, -0.63), (0.13, -0.63), (0, low)], pen.dark)
    pen.line([(0, low), (0, hem - 0.06)], pen.dark, 0.03)
    _buttons(pen, low + 0.08, hem - 0.14, rng.choice((3, 4)), pen.light, u=0.04)
    pen.lines([(0.12, 0.2), (0.26, 0.18)], pen.dark, 0.035)


def _underwear(pen: Pen, rng: random.Random) -> None:
    if rng.random() < 0.5:
        pen.both([(0, -0.3), (0.5, -0.34), (0.52, -0.1), (0.3, 0.04), (0.12, 0.34), (0, 0.36)], pen.main)
        pen.both([(0, -0.34), (0.5, -0.38), (0.51, -0.25), (0, -0.21)], pen.accent)
        pen.lines([(0.3, 0.04), (0.12, 0.34)], pen.dark, 0.03)
    else:
        pen.lines([(0.2, -0.7), (0.22, -0.35)], pen.main, 0.04)
        pen.both([(0, 0.0), (0.03, -0.12), (0.22, -0.38), (0.38, -0.1), (0.36, 0.12), (0, 0.16)], pen.main)
        pen.both([(0, 0.06), (0.37, 0.02), (0.36, 0.14), (0, 0.18)], pen.accent)
        pen.lines([(0.05, -0.08), (0.2, 0.04), (0.34, -0.08)], pen.dark, 0.025)


#: In the order of Clothing-1M's labels.
GARMENTS: Final[dict[str, Callable[[Pen, random.Random], None]]] = {
    "T-Shirt": _t_shirt,
    "Shirt": _shirt,
    "Knitwear": _knitwear,
    "Chiffon": _chiffon,
    "Sweater": _sweater,
    "Hoodie": _hoodie,
    "Windbreaker": _windbreaker,
    "Jacket": _jacket,
    "Downcoat": _downcoat,
    "Suit": _suit,
    "Shawl": _shawl,
    "Dress": _dress,
    "Vest": _vest,
    "Underwear": _underwear,
}
