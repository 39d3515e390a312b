"""How well a two-tower model finds texts by images, images by texts, and classes by prompts."""

from collections.abc import Iterator, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from rhostream.errors import ConfigError

_ROWS: Final = 1_024  # of (rows, n) similarities at a time


def retrieval_recall(
    images: Tensor, texts: Tensor, captions: Sequence[str], ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Shares of the queries for which one of the k most alike is right: `image_to_text_r1`, `text_to_image_r1`, ….

    A text is right for an image whose own caption says the same, and an image for a text that says the same as its own
    caption. Of what is equally alike the wrong ones come first, so that a constant model finds nothing.

    Args:
        images, texts: (n, D), normalized, of n pairs.
        captions: of these.
        ks: each 1 or more.

    Raises:
        ConfigError: no pairs, or not as many captions as embeddings.
    """
    if not len(images) == len(texts) == len(captions) > 0:
        raise ConfigError(
            f"retrieval among {len(images)} images, {len(texts)} texts and {len(captions)} captions: give one of each "
            "for every pair, at least one pair"
        )
    numbers: dict[str, int] = {}
    same = torch.tensor([numbers.setdefault(caption, len(numbers)) for caption in captions], device=images.device)
    found: dict[str, float] = {}
    for name, queries, keys in (("image_to_text", images, texts), ("text_to_image", texts, images)):
        before = torch.cat(list(_wrong_before(queries.float(), keys.float(), same)))
        found |= {f"{name}_r{k}": float((before < k).double().mean()) for k in ks}
    return found


def _wrong_before(queries: Tensor, keys: Tensor, same: Tensor) -> Iterator[Tensor]:
    """int64: of each query the wrong keys that are not less alike than the best right one."""
    for first in range(0, len(queries), _ROWS):
        rows = slice(first, first + _ROWS)
        alike, right = queries[rows] @ keys.T, same[rows, None] == same
        best = alike.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        yield ((alike >= best) & ~right).sum(1)


def class_embeddings(prompts: Tensor) -> Tensor:
    """float32 (classes, D), normalized: the means of the embeddings of each class's prompts (CLIP, section 3.1.4).

    Args:
        prompts: (classes, prompts, D), normalized.
    """
    return F.normalize(prompts.float().mean(1), dim=1)


def zero_shot_accuracy(images: Tensor, classes: Tensor, labels: Tensor) -> float:
    """Share of the images that are most like the embedding of their own class.

    Args:
        images: (n, D), normalized.
        classes: (classes, D), of `class_embeddings`.
        labels: int64 (n,).
    """
    return float(((images.float() @ classes.float().T).argmax(1) == labels).double().mean())
