"""An image spec: how an image of any size becomes the fixed-size pixels that a model sees."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from rhostream.errors import ConfigError
from rhostream.loaders.decode.augmentation import Augmentation
from rhostream.loaders.decode.input_spec import InputSpec
from rhostream.loaders.decode.pixels import Pixels, fill_pixels
from rhostream.loaders.storage import UnreadableError, shaped

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class ImageSpec(InputSpec):
    """Side, channels and normalization of the pixels given to a model.

    Attributes:
        size: side in pixels; the shorter side is resized to `size`, then the center is cropped.
        channels: 3 (RGB) or 1 (luma).
        mean, std: per channel, of pixels scaled to [0, 1].
    """

    field: ClassVar[str] = "image"

    size: int = 64
    channels: Literal[1, 3] = 3
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"image size {self.size}: a spec needs at least 1 pixel a side")
        if self.channels not in (1, 3):
            raise ConfigError(f"image channels {self.channels}: choose 3 (RGB) or 1 (luma)")
        if not (len(self.mean) == len(self.std) == self.channels):
            raise ConfigError(
                f"image mean {self.mean} and std {self.std}: give {self.channels} numbers each, one a channel"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From the `[image]` table of a manifest or the `spec` of a model's metadata."""
        gray = {"mean": [0.5], "std": [0.5]} if values.get("channels") == 1 else {}
        known = {each.name for each in fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise ConfigError(f"[image] {values}: unknown setting {unknown[0]!r}; known are size, channels, mean, std")
        try:
            return shaped({**gray, **values}, cls)
        except UnreadableError as error:
            raise ConfigError(f"[image] {values} {error.cause}: correct it") from error

    def to_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @property
    def values(self) -> int:
        return self.size**2 * self.channels

    def inputs(self, name: str, stored: "torch.Tensor") -> "dict[str, torch.Tensor]":
        """The images under the same name, see `normalize`."""
        return {name: self.normalize(stored)}

    def joined(self, parts: "Sequence[torch.Tensor]") -> "torch.Tensor":
        import torch

        return torch.cat(list(parts))

    def blank(self, count: int) -> Pixels:
        """uint8 (count, C, H, W), channels last in memory."""
        return np.empty((count, self.size, self.size, self.channels), np.uint8).transpose(0, 3, 1, 2)

    def pixels(self, data: bytes, augmentation: Augmentation = "none", seed: str = "") -> Pixels:
        """Decode an image file: uint8 (channels, size, size).

        Args:
            augmentation: a random change of the image; its parameters are a function of the text `seed` alone, so
                that a resumed or re-sharded run sees the same pixels.

        Raises:
            UndecodableImageError: the bytes are not an image.
        """
        pixels = np.empty((self.size, self.size, self.channels), np.uint8)
        fill_pixels(pixels, data, augmentation, seed)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def normalize(self, images: "torch.Tensor") -> "torch.Tensor":
        """uint8 (N, C, H, W) to float32 (N, C, H, W), on the images' device."""
        mean = images.new_tensor(self.mean, dtype=_float32()).view(1, -1, 1, 1)
        std = images.new_tensor(self.std, dtype=_float32()).view(1, -1, 1, 1)
        # Contiguous, as many a model flattens its input with `Tensor.view`.
        pixels = images.to(_float32(), memory_format=_contiguous())
        return pixels.div_(255.0).sub_(mean).div_(std)


def _float32() -> "torch.dtype":
    import torch  # here, so that processes which only decode do not load it

    return torch.float32


def _contiguous() -> "torch.memory_format":
    import torch

    return torch.contiguous_format
