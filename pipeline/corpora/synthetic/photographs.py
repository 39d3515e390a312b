"""Photographs of the drawn garments: studio pictures that hardly vary, and snapshots that vary in everything."""

import math
import random
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from rhostream.pipeline.corpora.synthetic.garments import GARMENTS
from rhostream.pipeline.corpora.synthetic.outfits import Outfit
from rhostream.pipeline.corpora.synthetic.pen import Color, Pen, Pose, mix

SUPERSAMPLING: Final = 2
PROTOTYPES: Final = 3  # articles of a class that its studio pictures show again and again


def draw(name: str, rng: random.Random, *, side: int, studio: bool, outfit: Outfit | None = None) -> Image.Image:
    """One garment, RGB, `side` x `side` pixels; all that varies comes from `rng`.

    Args:
        name: a key of `GARMENTS`.
        studio: one of the class's few prototypes on a plain background, hardly varied: what a catalog is full of.
            Otherwise a snapshot: any color, pose, background and light, perhaps partly hidden.
        outfit: what is known of the garment beforehand; else all is left to chance.
    """
    style = random.Random(f"{name}/{rng.randrange(PROTOTYPES)}") if studio else rng
    main, accent = _colors(style) if outfit is None else outfit.paints(style)
    if studio:
        pose = Pose(angle=rng.uniform(-3, 3), scale=rng.uniform(0.88, 0.94), arms=rng.uniform(60, 66))
        canvas = Image.new("RGB", (side * SUPERSAMPLING,) * 2, (style.randint(225, 250),) * 3)
    else:
        shift = (rng.uniform(-0.08, 0.08), rng.uniform(-0.06, 0.06))
        pose = Pose(
            angle=rng.gauss(0, 4),
            scale=rng.uniform(0.82, 1.0),
            shift=shift,
            shear=rng.gauss(0, 0.04),
            arms=rng.uniform(52, 72),
        )
        canvas = _scene(rng, side * SUPERSAMPLING)
    known = {} if outfit is None else {"pattern": outfit.pattern, "sleeves": outfit.sleeves}
    pen = Pen(canvas, pose, main, accent, **known)
    GARMENTS[name](pen, style)
    if not studio:
        _hide(canvas, rng)
    return _photograph(canvas.reduce(SUPERSAMPLING), rng, studio=studio)


def _colors(rng: random.Random) -> tuple[Color, Color]:
    main = (rng.randint(30, 180), rng.randint(30, 180), rng.randint(30, 180))
    accent = (rng.randint(20, 250), rng.randint(20, 250), rng.randint(20, 250))
    return main, accent


def _scene(rng: random.Random, side: int) -> Image.Image:
    """A blurred room: coarse color noise around one color, with some furniture."""
    cells = rng.choice((2, 3, 5, 9))
    noise = np.random.default_rng(rng.getrandbits(64)).normal(0, rng.uniform(4, 18), (cells, cells, 3))
    color = np.array([rng.uniform(150, 245) for _ in range(3)])
    coarse = np.clip((color + noise), 0, 255).astype(np.uint8)
    scene = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(scene)
    for _ in range(rng.randrange(3)):
        x, y = rng.uniform(-0.2, 0.9) * side, rng.uniform(-0.2, 0.9) * side
        fill = mix((round(color[0]), round(color[1]), round(color[2])), _colors(rng)[0], 0.5)
        pen.rectangle((x, y, x + rng.uniform(0.1, 0.5) * side, y + rng.uniform(0.1, 0.5) * side), fill=fill)
    return scene


def _hide(canvas: Image.Image, rng: random.Random) -> None:
    """Sometimes a strip (a bag, an arm, a watermark) covers a part of the garment."""
    if rng.random() < 0.2:
        side = canvas.width
        x, y, angle = rng.uniform(0.2, 0.8) * side, rng.uniform(0.2, 0.8) * side, rng.uniform(0, math.pi)
        u, v = math.cos(angle) * side * 0.4, math.sin(angle) * side * 0.4
        width = round(rng.uniform(0.05, 0.13) * side)
        ImageDraw.Draw(canvas).line([(x - u, y - v), (x + u, y + v)], fill=_colors(rng)[0], width=width)


def _photograph(picture: Image.Image, rng: random.Random, *, studio: bool) -> Image.Image:
    """Light from one side, exposure and sensor noise."""
    noise = np.random.default_rng(rng.getrandbits(64))
    slope, angle = (0.04, 0.0) if studio else (rng.uniform(0.0, 0.2), rng.uniform(0, 2 * math.pi))
    exposure = rng.uniform(0.97, 1.03) if studio else rng.uniform(0.8, 1.15)
    axis = np.linspace(-1, 1, picture.width, dtype=np.float32)
    light = exposure + slope * (axis[None, :] * math.cos(angle) + axis[:, None] * math.sin(angle))
    pixels = np.asarray(picture, np.float32) * light[..., None]
    pixels += noise.standard_normal(pixels.shape, np.float32) * np.float32(2.0 if studio else rng.uniform(2, 8))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
