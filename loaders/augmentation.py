"""Random changes of a training image, their parameters drawn per sample from a text such as "seed/epoch/key"."""

import hashlib
import math
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

Augmentation = Literal["none", "shift", "shift_flip", "resized_crop"]
AUGMENTATIONS: tuple[str, ...] = get_args(Augmentation)

_AREA = (0.35, 1.0)  # of the image, for resized_crop; torchvision's default of 0.08 loses the garment
_LOG_RATIO = math.log(4 / 3)  # aspect ratio of the crop, at most this or its inverse


def uniform_draws(text: str) -> tuple[float, ...]:
    """Five numbers in [0, 1), a function of the text."""
    digest = hashlib.blake2b(text.encode(), digest_size=20).digest()
    return tuple(int.from_bytes(digest[at : at + 4], "little") / 2**32 for at in range(0, 20, 4))


def decode_size(size: int, augmentation: Augmentation) -> int:
    """Pixels that the shorter side must be decoded to, so that the smallest crop is not enlarged."""
    if augmentation != "resized_crop":
        return size
    return math.ceil(size / math.sqrt(_AREA[0] * math.exp(-_LOG_RATIO)))


def crop_box(
    image: tuple[int, int], size: int, augmentation: Augmentation, draws: tuple[float, ...]
) -> tuple[float, float, float, float]:
    """The part of a (width, height) image that becomes the view: left, top, right, bottom in pixels.

    The largest centred square, except for "resized_crop": a part of random area, aspect ratio and place.
    """
    width, height = image
    if augmentation == "resized_crop":
        area = width * height * (_AREA[0] + (_AREA[1] - _AREA[0]) * draws[0])
        ratio = math.exp(_LOG_RATIO * (2 * draws[1] - 1))
        across, down = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
        left, top = draws[2] * (width - across), draws[3] * (height - down)
        return (left, top, left + across, top + down)
    side = min(width, height)
    # Whole pixels of the resized image, as a resize to `size` followed by a centre crop would take them.
    unit = side / size
    left, top = math.floor((width - side) / unit / 2) * unit, math.floor((height - side) / unit / 2) * unit
    return (left, top, left + side, top + side)


def shift_and_flip(
    pixels: npt.NDArray[np.uint8], augmentation: Augmentation, draws: tuple[float, ...]
) -> npt.NDArray[np.uint8]:
    """Shift by up to an eighth of the side ("shift", "shift_flip") and mirror ("shift_flip", "resized_crop").

    Args:
        pixels: uint8 (C, S, S); what a shift uncovers repeats the edge.
    """
    if augmentation in ("shift", "shift_flip"):
        side = pixels.shape[-1]
        reach = side // 8
        padded = np.pad(pixels, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
        left, top = int(draws[2] * (2 * reach + 1)), int(draws[3] * (2 * reach + 1))
        pixels = padded[:, top : top + side, left : left + side]
    if augmentation in ("shift_flip", "resized_crop") and draws[4] < 0.5:
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(pixels)
