"""Two-tower models of open_clip and of Hugging Face, called with batches of ours."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.loaders.decode import TextSpec
from rhostream.loaders.stream import Batch


def images_and_tokens(batch: Batch) -> tuple[Tensor, Tensor]:
    """As open_clip's loop and its models want them: float32 (n, C, H, W) and int64 (n, length), padded to the spec's.

    Of a super-batch or of a selected one:

        def forward(model, batch):
            return model(*rho.images_and_tokens(batch))

    Raises:
        ConfigError: the samples are weighted, and this pair would lose their weights.
    """
    weights = getattr(batch, "weights", None)
    if weights is not None and not bool((weights == 1).all()):
        raise ConfigError(
            "the selected pairs are weighted, which images and tokens alone cannot say: give SelectingLoader a collate "
            "that hands batch.weights on"
        )
    return batch.images, _padded(batch, "input_ids")


def transformers_outputs(model: Callable[..., Any], batch: Batch) -> Mapping[str, Tensor]:
    """A forward for models of Hugging Face: `CLIPModel`, and `SiglipModel`, which is given no mask (it sees padding).

    `Pairs(forward=rho.transformers_outputs)` makes of the outputs what `PairEmbeddings.of` reads.
    """
    inside = cast(Any, model)
    bias = getattr(inside, "logit_bias", None)
    tokens = {"input_ids": _padded(batch, "input_ids")}
    if bias is None:
        tokens["attention_mask"] = _padded(batch, "attention_mask")
    outputs = model(pixel_values=batch.images, **tokens)
    found = {
        "image_features": outputs.image_embeds,
        "text_features": outputs.text_embeds,
        "logit_scale": inside.logit_scale.exp(),
    }
    return found if bias is None else found | {"logit_bias": bias}


def _padded(batch: Batch, name: str) -> Tensor:
    spec = cast(Any, batch).specs["text"]
    assert isinstance(spec, TextSpec)
    tokens = batch.tokens[name]
    value = spec.pad_id if name == "input_ids" else 0
    return F.pad(tokens, (0, max(0, spec.length - tokens.shape[1])), value=value)
