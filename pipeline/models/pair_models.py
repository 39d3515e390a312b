"""Two-tower models of image-text pairs that need no download: small ones, and those of open_clip from a folder."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rhostream.errors import ConfigError
from rhostream.loaders.decode import ImageSpec, TextSpec
from rhostream.loaders.reference import ContrastiveLoss, require_contrastive
from rhostream.pipeline.config import PAIRS_MODEL
from rhostream.pipeline.models.networks import Residual
from rhostream.pipeline.models.open_clip_models import (
    OPEN_CLIP,
    OpenClipImages,
    OpenClipTexts,
    normalization_of,
    open_clip_model,
)
from rhostream.pipeline.models.registry import load_weights
from rhostream.pipeline.models.text_models import BagOfNgrams

_EMBEDDING: Final = 64  # numbers of an embedding
_GRID: Final = 16  # side of the image tower's first feature map
HIGHEST_SCALE: Final = 100.0  # CLIP: beyond, training becomes unstable


class TwoTowers(nn.Module):
    """An image tower and a text tower that end in one space, and the temperature of their likeness.

    Args:
        image_tower: images float32 (n, C, H, W) -> (n, D).
        text_tower: `input_ids`, `attention_mask` int64 (n, tokens) -> (n, D).
        loss: decides where temperature and bias begin: at 10 and -10 (SigLIP), or at 1 / 0.07 and without one (CLIP).
    """

    def __init__(self, image_tower: nn.Module, text_tower: nn.Module, loss: ContrastiveLoss) -> None:
        super().__init__()
        require_contrastive(loss)
        self.image_tower, self.text_tower = image_tower, text_tower
        of_siglip = loss == "sigmoid"
        self.logit_scale = nn.Parameter(torch.tensor(math.log(10.0 if of_siglip else 1 / 0.07)))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0)) if of_siglip else None

    def forward(self, images: Tensor, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`image_features` and `text_features` (n, D), normalized; `logit_scale`, exp'ed; `logit_bias` if any."""
        found = {
            "image_features": self.encode_image(images),
            "text_features": self.encode_text(tokens),
            "logit_scale": self.logit_scale.exp().clamp(max=HIGHEST_SCALE),
        }
        return found if self.logit_bias is None else found | {"logit_bias": self.logit_bias}

    def encode_image(self, images: Tensor) -> Tensor:
        """float32 (n, D), normalized."""
        return F.normalize(self.image_tower(images).float(), dim=1)

    def encode_text(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """float32 (n, D), normalized, of `input_ids` and `attention_mask`."""
        return F.normalize(self.text_tower(**tokens).float(), dim=1)


def build_pairs_model(
    name: str,
    image_spec: ImageSpec,
    text_spec: TextSpec,
    *,
    loss: ContrastiveLoss = "sigmoid",
    seed: int,
    weights: str | None = None,
) -> TwoTowers:
    """A two-tower model of what the specs make of samples, on the CPU: see `TwoTowers`.

    Args:
        name: a key of `PAIR_MODELS`, or `open_clip/` and a local folder, whose weights it begins with.
        loss: that it is to be trained with.
        seed: of the initialization; torch's global generators are left as they were.
        weights: a local .safetensors or .pt file of its state dict.

    Raises:
        ConfigError: an unknown name, a spec that the model cannot take, or weights that are not this model's.
    """
    if name not in PAIR_MODELS and not name.startswith(OPEN_CLIP):
        raise ConfigError(
            f"model {name!r} takes no pairs of images and texts: choose {', '.join(PAIR_MODELS)}, or {OPEN_CLIP}FOLDER"
        )
    if not text_spec.vocabulary:
        raise ConfigError(f"model {name!r} needs the number of token ids: give TextSpec(…, vocabulary=…)")
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        make = PAIR_MODELS.get(name) or partial(_of_open_clip, name)
        model = make(image_spec, text_spec, loss)
    finally:
        torch.set_rng_state(state)
    if weights is not None:
        load_weights(model, name, Path(weights))
    return model


def _clip(image_spec: ImageSpec, text_spec: TextSpec, loss: ContrastiveLoss, *, width: int) -> TwoTowers:
    """A residual network over patches, and a bag of n-grams: 1.9M parameters, 24 MFLOPs a pair, whatever the size.

    Those are of 32 channels; half of them take a quarter of the FLOPs, and 1.6M parameters, most of them the n-grams'.
    It normalizes by groups of channels: no embedding depends on the others of its batch, nor on how many ranks share
    the batch out. It takes images of any size.
    """
    norm, stride = partial(nn.GroupNorm, 8), max(1, image_spec.size // _GRID)
    image_tower = nn.Sequential(
        nn.Conv2d(image_spec.channels, width, max(3, 2 * stride - 1), stride, padding=max(1, stride - 1)),
        norm(width),
        nn.ReLU(),
        Residual(width, width, 1, norm),
        Residual(width, 2 * width, 2, norm),
        Residual(2 * width, 4 * width, 2, norm),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, _EMBEDDING),
    )
    return TwoTowers(image_tower, BagOfNgrams(text_spec.vocabulary, _EMBEDDING), loss)


def _of_open_clip(name: str, image_spec: ImageSpec, text_spec: TextSpec, loss: ContrastiveLoss) -> TwoTowers:
    """With its own temperature and, under the sigmoid loss, its own bias, if it has one."""
    found = open_clip_model(name, image_spec, text_spec)
    images = OpenClipImages(found.visual, image_spec, *normalization_of(found))
    model = TwoTowers(images, OpenClipTexts(found.text), loss)
    with torch.no_grad():
        model.logit_scale.copy_(found.logit_scale.reshape(()))
        if model.logit_bias is not None and found.logit_bias is not None:
            model.logit_bias.copy_(found.logit_bias.reshape(()))
    return model


PAIR_MODELS: Final = {PAIRS_MODEL: partial(_clip, width=32), "tiny_clip": partial(_clip, width=16)}
