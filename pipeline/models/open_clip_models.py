"""Two-tower models of open_clip from a local folder, called as ours are."""

from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rhostream.errors import ConfigError
from rhostream.extras import install_command
from rhostream.loaders.decode import ImageSpec, TextSpec
from rhostream.loaders.storage import UnreadableError, decode_card

OPEN_CLIP: Final = "open_clip/"

_CONFIG: Final = "open_clip_config.json"


class OpenClipImages(nn.Module):
    """An image tower of open_clip, given images that `spec` normalizes, and not the tower's own mean and deviation.

    Args:
        mean, std: that the tower was trained with, of each channel.
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, visual: nn.Module, spec: ImageSpec, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.visual = visual
        wanted, given = (torch.tensor(each)[:, :, None, None] for each in ((mean, std), (spec.mean, spec.std)))
        self.register_buffer("factor", given[1] / wanted[1], persistent=False)
        self.register_buffer("offset", (given[0] - wanted[0]) / wanted[1], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(n, D) of float32 (n, C, H, W)."""
        features: Tensor = self.visual(images * self.factor + self.offset)
        return features


class OpenClipTexts(nn.Module):
    """A text tower of open_clip, given tokens of any length: they are padded to its own, with its own id."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.text = text

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(n, D) of int64 (n, tokens)."""
        ids = input_ids.masked_fill(attention_mask == 0, self.text.pad_id)
        length = self.text.context_length
        features: Tensor = self.text(F.pad(ids, (0, length - ids.shape[1]), value=self.text.pad_id))
        return features


def open_clip_model(name: str, image_spec: ImageSpec, text_spec: TextSpec) -> Any:
    """The model of a local folder: `open_clip_config.json` and, where there are some, its weights, as on the hub.

    Images of another size than its own are taken with its positions interpolated, as open_clip does.

    Args:
        name: `open_clip/` and the folder.

    Returns:
        With the attributes `visual`, `text`, `logit_scale` (its logarithm) and `logit_bias` or None.

    Raises:
        ConfigError: a folder that holds no such model, or specs that it cannot take.
    """
    folder = Path(name.removeprefix(OPEN_CLIP))
    try:
        config = decode_card((folder / _CONFIG).read_bytes())["model_cfg"]
        of_texts, _ = (dict(config[tower]) for tower in ("text_cfg", "vision_cfg"))
    except (OSError, UnreadableError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"model {name}: the folder has no readable {_CONFIG} of two towers; name a local folder of an open_clip "
            "model, as they lie on the Hugging Face hub (nothing is ever downloaded)"
        ) from error
    if of_texts.get("hf_model_name"):
        raise ConfigError(
            f"model {name}: its text tower is one of Hugging Face's hub, and nothing is ever downloaded; take a model "
            "with a text tower of open_clip's own"
        )
    if image_spec.channels != 3:
        raise ConfigError(f"model {name} takes images of 3 channels: set [image] channels = 3 in the manifest")
    try:
        import open_clip
    except ImportError as error:
        raise ConfigError(
            f"model {name}: the package open_clip is not installed; run `{install_command('open_clip_torch')}`"
        ) from error
    try:
        model = open_clip.create_model(
            f"local-dir:{folder}", force_image_size=image_spec.size, force_custom_text=True, pretrained_text=False
        )
        with torch.no_grad():  # a patch that is larger than the images says so here
            model.eval().visual(torch.zeros(1, 3, image_spec.size, image_spec.size))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"model {name} of images of {image_spec.size} pixels does not open: {reason}; mend the folder, or give "
            "the size that it was trained on as --image-size"
        ) from error
    if type(model) is not open_clip.CustomTextCLIP:
        raise ConfigError(f"model {name} is a {type(model).__name__}, not of two towers alone: take another")
    if text_spec.vocabulary > model.vocab_size:
        raise ConfigError(
            f"model {name} knows {model.vocab_size} token ids, the tokenizer gives {text_spec.vocabulary}: give the "
            f"model's own, --tokenizer {folder}"
        )
    if text_spec.length > model.context_length:
        raise ConfigError(
            f"model {name} takes {model.context_length} tokens, the spec gives up to {text_spec.length}: give "
            f"--text-length {model.context_length}"
        )
    return model.train()


def normalization_of(model: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel that a model of open_clip was trained with."""
    config = model.visual.preprocess_cfg
    return tuple(config["mean"]), tuple(config["std"])
