"""What a drawn garment is to look like, and the words for it: "a red shirt with yellow stripes and long sleeves"."""

import random
from dataclasses import dataclass, replace
from typing import Final

from rhostream.pipeline.corpora.synthetic.pen import Color

COLORS: Final[dict[str, Color]] = {
    "red": (190, 40, 40),
    "orange": (225, 120, 30),
    "yellow": (215, 195, 40),
    "green": (40, 140, 60),
    "turquoise": (50, 170, 175),
    "blue": (40, 70, 180),
    "purple": (120, 50, 150),
    "pink": (225, 130, 170),
    "brown": (110, 70, 40),
    "gray": (120, 120, 125),
    "black": (35, 35, 40),
    "white": (235, 235, 235),
}
#: The words for a garment, and whether it comes in patterns, and with sleeves of two lengths.
_GARMENTS: Final[dict[str, tuple[str, bool, bool]]] = {
    "T-Shirt": ("T-shirt", True, True),
    "Shirt": ("shirt", True, True),
    "Dress": ("dress", True, True),
    "Sweater": ("sweater", True, False),
    "Hoodie": ("hoodie", True, False),
    "Knitwear": ("cable-knit pullover", False, False),
    "Chiffon": ("chiffon blouse", False, False),
    "Windbreaker": ("windbreaker", False, False),
    "Jacket": ("jacket", False, False),
    "Downcoat": ("down coat", False, False),
    "Suit": ("suit", False, False),
    "Shawl": ("shawl", False, False),
    "Vest": ("vest", False, False),
}
_PATTERNS: Final = {"plain": "", "striped": "stripes", "dotted": "dots"}
_JITTER: Final = 16  # of 256, in each channel of a color


@dataclass(frozen=True, kw_only=True)
class Outfit:
    """A garment as a caption tells of it.

    Attributes:
        garment: a key of `rhostream.pipeline.corpora.synthetic.garments.GARMENTS`.
        color, accent: keys of `COLORS`; the accent is that of stripes and dots.
        pattern: "plain", "striped" or "dotted".
        sleeves: "long" or "short"; "" where the garment has but one kind.
    """

    garment: str
    color: str
    accent: str
    pattern: str
    sleeves: str

    @classmethod
    def any(cls, chance: random.Random) -> "Outfit":
        """One at random; a garment that comes in more forms is the likelier."""
        weights = [1 + patterned + sleeved for _, patterned, sleeved in _GARMENTS.values()]
        garment = chance.choices([*_GARMENTS], weights)[0]
        _, patterned, sleeved = _GARMENTS[garment]
        color, accent = chance.sample([*COLORS], 2)
        return cls(
            garment=garment,
            color=color,
            accent=accent,
            pattern=chance.choice([*_PATTERNS]) if patterned else "plain",
            sleeves=chance.choice(("long", "short")) if sleeved else "",
        )

    def in_another_color(self, chance: random.Random) -> "Outfit":
        others = [name for name in COLORS if name not in (self.color, self.accent)]
        return replace(self, color=chance.choice(others))

    @property
    def caption(self) -> str:
        """In English."""
        pattern = f"{self.accent} {_PATTERNS[self.pattern]}" if _PATTERNS[self.pattern] else ""
        parts = [each for each in (pattern, f"{self.sleeves} sleeves" if self.sleeves else "") if each]
        article = "an" if self.color[0] in "aeiou" else "a"
        told = f"{article} {self.color} {_GARMENTS[self.garment][0]}"
        return f"{told} with {' and '.join(parts)}" if parts else told

    def paints(self, chance: random.Random) -> tuple[Color, Color]:
        """Colors that go by these names: main and accent."""
        return _shade(COLORS[self.color], chance), _shade(COLORS[self.accent], chance)


def _shade(color: Color, chance: random.Random) -> Color:
    red, green, blue = (min(255, max(0, part + chance.randint(-_JITTER, _JITTER))) for part in color)
    return red, green, blue
