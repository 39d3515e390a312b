"""A trainer's own augmentation, applied to the selected images before they are normalized."""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.selection.scoring import seed_generators


@dataclass(frozen=True)
class PerSample:
    """A transform of one image; its random numbers are a function of the selector's seed, the epoch and the key.

    Attributes:
        function: of a uint8 tensor (C, H, W) on the model's device, as torchvision's v2 takes it; or of a PIL image, as
            timm's takes it. It returns an image of the same kind, or a float tensor, which is then not normalized.
        pil: is it given PIL images?
    """

    function: Callable[[Any], Any]
    pil: bool = False


@dataclass(frozen=True)
class PerBatch:
    """A transform of a whole batch; its random numbers are a function of the selector's seed, the epoch and the keys.

    Attributes:
        function: of a uint8 tensor (n, C, H, W) on the model's device; it returns such a one, or a float tensor, which
            is then not normalized.
    """

    function: Callable[[Tensor], Tensor]


Transform = Callable[[Any], Any] | PerSample | PerBatch


def transformed(transform: Transform, images: Tensor, keys: Sequence[str], seed: str) -> Tensor:
    """The images of a batch, uint8 or float (n, C, h, w); the random numbers of the training stay as they were.

    Args:
        transform: a plain function is that of a `PerSample`.
        images: uint8 (n, C, H, W).
        seed: with a sample's key it decides on its random numbers.

    Raises:
        ConfigError: the transform gives images of several sizes, or something else than images.
    """
    if not isinstance(transform, (PerSample, PerBatch)):
        transform = PerSample(transform)
    with _own_random_numbers(images.device):
        if isinstance(transform, PerBatch):
            _seed(f"{seed}/{hashlib.sha256('/'.join(keys).encode()).hexdigest()}", images.device)
            changed = transform.function(images)
        else:
            changed = _each(transform, images, keys, seed)
    if not isinstance(changed, Tensor) or changed.dim() != 4 or len(changed) != len(images):
        shape = tuple(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
        raise ConfigError(f"transform: {shape} for {len(images)} images; return as many images (n, C, H, W)")
    if changed.dtype != torch.uint8 and not changed.is_floating_point():
        raise ConfigError(
            f"transform: images of {changed.dtype}; return uint8, or float to leave out the normalization"
        )
    return changed


def _each(transform: PerSample, images: Tensor, keys: Sequence[str], seed: str) -> Tensor:
    changed = []
    for image, key in zip(images, keys, strict=True):
        _seed(f"{seed}/{key}", image.device)
        changed.append(_from_pil(transform.function(_pil(image))) if transform.pil else transform.function(image))
    if not all(isinstance(image, Tensor) for image in changed):
        raise ConfigError(
            "transform: it does not return a tensor for each image; one that takes PIL images is given as "
            "PerSample(transform, pil=True)"
        )
    if len(sizes := sorted({tuple(image.shape) for image in changed})) > 1:
        raise ConfigError(f"transform: images of the sizes {sizes[0]} and {sizes[-1]}; end it with a crop or a resize")
    return torch.stack(changed).to(images.device)


def _pil(image: Tensor) -> Image.Image:
    pixels = image.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(pixels if pixels.shape[2] > 1 else pixels[..., 0]))


def _from_pil(image: Any) -> Any:
    if not isinstance(image, Image.Image):
        return image
    pixels = np.array(image)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())


@contextmanager
def _own_random_numbers(device: torch.device) -> Iterator[None]:
    """torch's, NumPy's and Python's generators are put back at the end: transforms use all three."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


def _seed(text: str, device: torch.device) -> None:
    seed_generators(text, device)
    digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
    random.seed(digest)
    np.random.seed(int.from_bytes(digest))
