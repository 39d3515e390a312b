"""From the bytes of an image file to the pixels of a spec."""

import sys

import numpy as np
from PIL import Image

from rhostream.loaders.decode.augmentation import Augmentation, crop_box, decode_size, shift_and_flip, uniform_draws
from rhostream.loaders.decode.fast_paths import Pixels, fast_rgb
from rhostream.loaders.decode.rgb import decode_rgb

__all__ = ["Pixels", "fill_pixels"]


def fill_pixels(into: Pixels, data: bytes, augmentation: Augmentation = "none", seed: str = "") -> None:
    """Decode an image file: the shorter side resized to the spec's, the center cropped; then augmented.

    Args:
        into: uint8 (size, size, channels), contiguous: filled, but where an error is raised undefined. One channel is
            luma.
        augmentation: a random change of the image; its parameters are a function of the text `seed` alone, so that a
            resumed or re-sharded run sees the same pixels.

    Raises:
        UndecodableImageError: the bytes are not an image.
    """
    size, _, channels = into.shape
    at_least = decode_size(size, augmentation)
    fast = fast_rgb(data, at_least, into if augmentation == "none" else None)
    if fast is into:
        return
    draws = uniform_draws(seed) if augmentation != "none" else ()
    if fast is not None and augmentation != "resized_crop" and min(fast.shape[:2]) == size:
        top, left = (fast.shape[0] - size) // 2, (fast.shape[1] - size) // 2
        square = fast[top : top + size, left : left + size]
        if channels == 1 and square.shape[2] == 3:
            square = np.asarray(Image.fromarray(square).convert("L"))[..., None]
    else:
        # What is stored has passed the manifest's bound on pixels: no other one here.
        image = decode_rgb(data, at_least=at_least, max_pixels=sys.maxsize) if fast is None else _image(fast)
        box = crop_box(image.size, size, augmentation, draws)
        if box != (0, 0, size, size) or image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
        square = np.asarray(image if channels == 3 else image.convert("L")).reshape(size, size, channels)
    # A gray picture fills all channels.
    into[...] = shift_and_flip(square, augmentation, draws)


def _image(pixels: Pixels) -> Image.Image:
    """RGB, of uint8 (height, width, 3) or, gray, (height, width, 1)."""
    return Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
