"""Pixels decoded and transformed the ordinary way."""

import sys

import numpy as np
from PIL import Image

from rhostream.loaders.decode.augmentation import Augmentation, crop_box, decode_size, uniform_draws
from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.loaders.decode.rgb import decode_rgb


def reference(data: bytes, spec: ImageSpec, augmentation: Augmentation = "none", draw: str = "") -> np.ndarray:
    """The spec's pixels (C, S, S) the ordinary way: Pillow decodes, resizes and crops; NumPy pads, shifts and flips."""
    size = spec.size
    image = decode_rgb(data, at_least=decode_size(size, augmentation), max_pixels=sys.maxsize)
    draws = uniform_draws(draw)
    box = crop_box(image.size, size, augmentation, draws)
    image = image.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    pixels = np.asarray(image.convert("L"))[None] if spec.channels == 1 else np.asarray(image).transpose(2, 0, 1)
    if augmentation in ("shift", "shift_flip"):
        reach = size // 8
        padded = np.pad(pixels, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
        left, top = (int(value * (2 * reach + 1)) for value in draws[2:4])
        pixels = padded[:, top : top + size, left : left + size]
    if augmentation in ("shift_flip", "resized_crop") and draws[4] < 0.5:
        pixels = pixels[:, :, ::-1]
    return pixels
