"""Grids of candidates with captions: what a selector has just chosen, and what it has just passed over."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from rhostream.loaders.batch import SuperBatch
from rhostream.selection.selector import SelectedBatch

SELECTED: Final = "pictures/selected"
PASSED_OVER: Final = "pictures/passed_over_highest_il"

_COLUMNS, _MOST = 8, 16
_SIDE, _CAPTION, _GAP = 64, 26, 6  # pixels: a grid is compressed at every evaluation


def picture_grids(batch: SelectedBatch, classes: Sequence[str]) -> dict[str, Image.Image]:
    """The selected with the highest scores, and of those passed over the ones with the highest irreducible losses.

    Args:
        classes: name of every label, for the captions.

    Returns:
        RGB grids by name, the first candidate of each at the top left.
    """
    candidates = batch.super_batch
    grids = {SELECTED: _grid(candidates, batch.positions[:_MOST], classes)}
    if candidates.il is not None:
        il = candidates.il.cpu().numpy()
        passed = np.setdiff1d(np.arange(len(candidates)), batch.positions)
        if len(passed):
            grids[PASSED_OVER] = _grid(candidates, passed[np.argsort(-il[passed], kind="stable")][:_MOST], classes)
    return grids


def _grid(candidates: SuperBatch, positions: npt.NDArray[np.int64], classes: Sequence[str]) -> Image.Image:
    images = candidates.images[positions].cpu().numpy()
    labels = candidates.labels[positions].cpu().numpy()
    il = None if candidates.il is None else candidates.il[positions].cpu().numpy()
    width, height = _SIDE + _GAP, _SIDE + _CAPTION
    rows = -(-len(positions) // _COLUMNS)
    grid = Image.new("RGB", (_COLUMNS * width, rows * height), "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(9)
    for place, pixels in enumerate(images):
        left, top = place % _COLUMNS * width, place // _COLUMNS * height
        picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0).repeat(3 // len(pixels), axis=2)))
        grid.paste(picture.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), (left, top))
        caption = f"{classes[labels[place]][:12]}\n" + ("" if il is None else f"IL {il[place]:.2f}")
        draw.text((left, top + _SIDE), caption, fill="black", font=font, spacing=1)
    return grid
