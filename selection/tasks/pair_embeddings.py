"""Embeddings of image-text pairs, and the contrastive losses that follow from them.

Legend: n pairs, D numbers of an embedding, z_ij = scale · ⟨image_i, text_j⟩ + bias.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Self, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.loaders.reference import ContrastiveLoss, PairReference
from rhostream.loaders.stream import SuperBatch

_ROWS: Final = 2_048  # of (rows, n) logits at a time: memory grows with n, not with its square
_ALL: Final = slice(None)
_NAMES: Final = ("image_features", "text_features", "logit_scale", "logit_bias")


@dataclass(frozen=True, kw_only=True)
class PairEmbeddings:
    """What a two-tower model makes of n pairs. All is computed in float32, whatever autocast says.

    Attributes:
        images, texts: (n, D), normalized.
        scale: what their cosines are multiplied by, a scalar above 0 (one over the temperature).
        bias: what is added to them, a scalar.
    """

    images: Tensor
    texts: Tensor
    scale: Tensor
    bias: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def of(cls, outputs: Any) -> Self:
        """Of a model's outputs: a mapping with `image_features`, `text_features`, `logit_scale` (exp'ed) and maybe
        `logit_bias`, as models of open_clip give it, or a tuple of these.

        Raises:
            ConfigError: they are something else, or not of one shape.
        """
        found = dict(zip(_NAMES, outputs, strict=False)) if type(outputs) is tuple else outputs
        if not isinstance(found, Mapping) or not all(isinstance(found.get(name), Tensor) for name in _NAMES[:3]):
            known = f" with {', '.join(map(str, found))}" if isinstance(found, Mapping) else ""
            raise ConfigError(
                f"the model gave a {type(outputs).__name__}{known} in place of a mapping with {', '.join(_NAMES[:3])} "
                "(and logit_bias, where it has one): make one of what it gives, OnlineSelector(…, forward=lambda "
                "model, batch: {…})"
            )
        images, texts, scale = (found[name] for name in _NAMES[:3])
        if images.dim() != 2 or images.shape != texts.shape:
            raise ConfigError(
                f"the model gave image features of shape {tuple(images.shape)} and text features of shape "
                f"{tuple(texts.shape)}: both must be (n, D), normalized"
            )
        bias = found.get("logit_bias")
        scale = scale.float().reshape(())
        return cls(
            images=images.float(),
            texts=texts.float(),
            scale=scale,
            bias=torch.zeros_like(scale) if bias is None else bias.float().reshape(()),
        )

    @classmethod
    def of_reference(cls, super_batch: SuperBatch) -> Self | None:
        """Of the candidates by the reference model, as stored; None where the stream joins no such table."""
        images, texts, reference = super_batch.image_embedding, super_batch.text_embedding, super_batch.reference
        return None if images is None or texts is None or reference is None else cls.stored(images, texts, reference)

    @classmethod
    def stored(cls, images: Tensor, texts: Tensor, reference: PairReference) -> Self:
        """Of stored embeddings, (n, D) of any precision."""
        scale, bias = images.new_tensor([reference.scale, reference.bias], dtype=torch.float32)
        return cls(images=images.float(), texts=texts.float(), scale=scale, bias=bias)

    def take(self, positions: Tensor) -> Self:
        """The pairs at these positions, int64 or bool, in this order."""
        return type(self)(images=self.images[positions], texts=self.texts[positions], scale=self.scale, bias=self.bias)

    def detach(self) -> Self:
        """Without a gradient."""
        tensors = (self.images, self.texts, self.scale, self.bias)
        images, texts, scale, bias = (tensor.detach() for tensor in tensors)
        return type(self)(images=images, texts=texts, scale=scale, bias=bias)

    def logits(self, images: slice | Tensor = slice(None), texts: slice | Tensor = slice(None)) -> Tensor:
        """float32 (rows, columns): z_ij of these images and these texts; of all by default."""
        with self._in_float32():
            return self.scale * (self.images[images] @ self.texts[texts].T) + self.bias

    def own(self) -> Tensor:
        """float32 (n,): z_ii, of each image with its own text."""
        with self._in_float32():
            return self.scale * (self.images * self.texts).sum(1) + self.bias

    def loss_matrix(self) -> Tensor:
        """float32 (n, n), nats: the sigmoid loss of each image with each text, softplus(−z_ii) or softplus(z_ij)."""
        return F.softplus(self._signed(self.logits(), slice(0, len(self))))

    def losses(self, loss: ContrastiveLoss, of: slice = _ALL) -> Tensor:
        """float32 (n,), nats: the part of each pair in the loss of the batch, which is their mean.

        "sigmoid" (SigLIP: Zhai et al., 2023): ½ Σ_j (L_ij + L_ji), L as of `loss_matrix`. "softmax" (CLIP: Radford et
        al., 2021): the mean of −ln softmax_j(z_ij) and −ln softmax_j(z_ji) at j = i.

        Args:
            of: consecutive pairs whose parts alone are computed, among all.
        """
        turned = PairEmbeddings(images=self.texts, texts=self.images, scale=self.scale, bias=self.bias)
        return (self._one_way(loss, of) + turned._one_way(loss, of)) / 2

    def finds_own(self, of: slice = _ALL) -> Tensor:
        """bool (n,): is no other text more like the image than its own? Of these, as of `losses`."""
        parts = []
        for rows in self._parts(of):
            logits = self.logits(rows)
            parts.append(logits.diagonal(rows.start) >= logits.amax(1))
        return torch.cat(parts)

    def _one_way(self, loss: ContrastiveLoss, of: slice) -> Tensor:
        """float32 (n,): of each of these images among all texts."""
        parts = []
        for rows in self._parts(of):
            logits = self.logits(rows)
            if loss == "sigmoid":
                parts.append(F.softplus(self._signed(logits, rows)).sum(1))
            elif loss == "softmax":
                parts.append(logits.logsumexp(1) - logits.diagonal(rows.start))
            else:
                assert_never(loss)
        return torch.cat(parts)

    def _signed(self, logits: Tensor, rows: slice) -> Tensor:
        """−z_ii and z_ij: what the sigmoid loss is the softplus of."""
        every = torch.arange(len(self), device=logits.device)
        return torch.where(every[rows, None] == every, -logits, logits)

    def _parts(self, of: slice) -> Iterator[slice]:
        begin, end, _ = of.indices(len(self))
        return (slice(first, min(first + _ROWS, end)) for first in range(begin, max(end, begin + 1), _ROWS))

    def _in_float32(self) -> AbstractContextManager[None]:
        context: AbstractContextManager[None] = torch.autocast(self.images.device.type, enabled=False)
        return context
