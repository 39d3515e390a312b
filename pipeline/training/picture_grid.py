"""Grids of candidates with captions: what a selector has just chosen, and what it has just passed over."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rhostream.loaders.stream import SuperBatch
from rhostream.selection.selected_batch import SelectedBatch

SELECTED: Final = "pictures/selected"
PASSED_OVER: Final = "pictures/passed_over_highest_il"

_COLUMNS, _MOST = 8, 16
_SIDE, _CAPTION, _GAP = 64, 26, 6  # pixels: a grid is compressed at every evaluation


def picture_grids(batch: SelectedBatch, classes: Sequence[str]) -> dict[str, Image.Image]:
    """The selected, and of those passed over the ones with the highest irreducible losses.

    Args:
        classes: name of every label, for the captions.

    Returns:
        RGB grids by name, the first candidate of each at the top left: of the selected in the order of the batch, which
        is that of their scores. What was chosen from an earlier super-batch is left out; of texts there are no grids.
    """
    selected = set(batch.keys)
    places: dict[str, tuple[SuperBatch, int]] = {}
    passed: list[tuple[float, str]] = []
    for candidates in batch.considered:
        if not len(candidates.fields.get("image", ())):  # given back, when the next one was considered
            continue
        places |= {key: (candidates, position) for position, key in enumerate(candidates.keys)}
        if candidates.il is not None:
            losses = zip(candidates.il.tolist(), candidates.keys, strict=True)
            passed += [(-il, key) for il, key in losses if key not in selected]
    shown = {SELECTED: [key for key in batch.keys if key in places], PASSED_OVER: [key for _, key in sorted(passed)]}
    return {name: _grid([places[key] for key in keys[:_MOST]], classes) for name, keys in shown.items() if keys}


def _named(label: Any, classes: Sequence[str]) -> str:
    """Of a class number, or of an Arrow list of them."""
    return ", ".join(classes[each] for each in label.as_py()) if hasattr(label, "as_py") else classes[int(label)]


def _grid(places: Sequence[tuple[SuperBatch, int]], classes: Sequence[str]) -> Image.Image:
    width, height = _SIDE + _GAP, _SIDE + _CAPTION
    rows = -(-len(places) // _COLUMNS)
    grid = Image.new("RGB", (_COLUMNS * width, rows * height), "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(9)
    for place, (candidates, position) in enumerate(places):
        left, top = place % _COLUMNS * width, place // _COLUMNS * height
        pixels = candidates.images[position].cpu().numpy()
        picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0).repeat(3 // len(pixels), axis=2)))
        grid.paste(picture.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), (left, top))
        il = "" if candidates.il is None else f"IL {float(candidates.il[position]):.2f}"
        texts = candidates.candidates.texts
        told = _named(candidates.candidates.labels[position], classes) if texts is None else texts[position]
        caption = f"{told[:12]}\n{il}"
        draw.text((left, top + _SIDE), caption, fill="black", font=font, spacing=1)
    return grid
