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
    """The part of a (width, height) image that becomes the spec: left, top, right, bottom in pixels.

    The largest centered square, except for "resized_crop": a part of random area, aspect ratio and place.
    """
    width, height = image
    if augmentation == "resized_crop":
        area = width * height * (_AREA[0] + (_AREA[1] - _AREA[0]) * draws[0])
        ratio = math.exp(_LOG_RATIO * (2 * draws[1] - 1))
        across, down = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
        left, top = draws[2] * (width - across), draws[3] * (height - down)
        return (left, top, left + across, top + down)
    side = min(width, height)
    # Whole pixels of the resized image, as a resize to `size` followed by a center crop would take them.
    unit = side / size
    left, top = math.floor((width - side) / unit / 2) * unit, math.floor((height - side) / unit / 2) * unit
    return (left, top, left + side, top + side)


def shift_and_flip(
    pixels: npt.NDArray[np.uint8], augmentation: Augmentation, draws: tuple[float, ...]
) -> npt.NDArray[np.uint8]:
    """Shift by up to an eighth of the side ("shift", "shift_flip") and mirror ("shift_flip", "resized_crop").

    Args:
        pixels: uint8 (S, S, C); what a shift uncovers repeats the edge.
    """
    if augmentation in ("shift", "shift_flip"):
        reach = pixels.shape[0] // 8
        left, top = (int(draw * (2 * reach + 1)) - reach for draw in draws[2:4])
        pixels = _begun_at(left, _begun_at(top, pixels, axis=0), axis=1)
    if augmentation in ("shift_flip", "resized_crop") and draws[4] < 0.5:
        mirrored = np.empty_like(pixels)
        for channel in range(pixels.shape[2]):  # four times as fast as all at once
            mirrored[..., channel] = pixels[:, ::-1, channel]
        pixels = mirrored
    return pixels


def _begun_at(start: int, pixels: npt.NDArray[np.uint8], axis: int) -> npt.NDArray[np.uint8]:
    """As many rows (or columns), from `start` on, which may be negative; outside, the edge is repeated."""
    shape = list(pixels.shape)
    shape[axis] = abs(start)
    if start > 0:
        kept, edge = (pixels[start:], pixels[-1:]) if axis == 0 else (pixels[:, start:], pixels[:, -1:])
        return np.concatenate((kept, np.broadcast_to(edge, shape)), axis)
    if start < 0:
        kept, edge = (pixels[:start], pixels[:1]) if axis == 0 else (pixels[:, :start], pixels[:, :1])
        return np.concatenate((np.broadcast_to(edge, shape), kept), axis)
    return pixels
