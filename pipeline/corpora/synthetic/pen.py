"""A pen for garments: areas, lines and dots in a garment's own coordinates.

u runs to the right and v down, both in shares of half the picture's side at scale 1; the neck lies near (0, -0.6).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

Point = tuple[float, float]
Color = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How the garment lies in the picture: degrees, and shares of half the picture's side."""

    angle: float = 0.0
    scale: float = 0.92
    shift: Point = (0.0, 0.0)
    shear: float = 0.0
    arms: float = 62.0  # degrees of the sleeves below the horizontal


class Pen:
    """Draws in a garment's coordinates, with its colors.

    Args:
        pattern, sleeves: of an `Outfit`, for garments that have them; "" leaves them to chance.
    """

    def __init__(
        self, canvas: Image.Image, pose: Pose, main: Color, accent: Color, *, pattern: str = "", sleeves: str = ""
    ) -> None:
        self.pattern, self.sleeves = pattern, sleeves
        self._draw = ImageDraw.Draw(canvas)
        half = canvas.width / 2
        cos, sin = (f(math.radians(pose.angle)) * half * pose.scale for f in (math.cos, math.sin))
        self._matrix = (
            cos,
            pose.shear * cos - sin,
            half * (1 + pose.shift[0]),
            sin,
            pose.shear * sin + cos,
            half * (1 + pose.shift[1]),
        )
        self._unit = half * pose.scale
        self.arms = pose.arms
        self.main, self.accent = main, accent
        self.dark, self.light = mix(main, (0, 0, 0), 0.6), mix(main, (255, 255, 255), 0.5)

    def _pixel(self, point: Point) -> Point:
        a, b, c, d, e, f = self._matrix
        return a * point[0] + b * point[1] + c, d * point[0] + e * point[1] + f

    def area(self, points: Sequence[Point], fill: Color) -> None:
        self._draw.polygon([self._pixel(p) for p in points], fill=fill)

    def line(self, points: Sequence[Point], fill: Color, width: float = 0.03) -> None:
        pixels = [self._pixel(p) for p in points]
        self._draw.line(pixels, fill=fill, width=max(1, round(width * self._unit)))

    def both(self, points: Sequence[Point], fill: Color) -> None:
        """An area and its mirror image."""
        self.area(points, fill)
        self.area([(-u, v) for u, v in points], fill)

    def lines(self, points: Sequence[Point], fill: Color, width: float = 0.03) -> None:
        """A line and its mirror image."""
        self.line(points, fill, width)
        self.line([(-u, v) for u, v in points], fill, width)

    def dot(self, point: Point, radius: float, fill: Color) -> None:
        x, y = self._pixel(point)
        r = radius * self._unit
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)


def mix(first: Color, second: Color, share: float) -> Color:
    """`share` of the second color in the first."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue
