"""What a selector hands to a trainer: a batch, and the candidates it was chosen from."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rhostream.loaders.decode import ImageSpec
from rhostream.loaders.stream import SuperBatch

_TENSORS = ("images", "scored", "labels", "weights", "il", "correct")


@dataclass(frozen=True, kw_only=True)
class Considered:
    """A super-batch that a selector has chosen from.

    Attributes:
        super_batch: on the model's device; without images where another has been considered since.
        correct: bool (n,), does the model predict the label already? None where no logits were computed.
        unreadable: how many were chosen whose full images could not be read.
    """

    super_batch: SuperBatch = field(repr=False)
    correct: Tensor | None = field(repr=False)
    unreadable: int

    def without_images(self) -> "Considered":
        """The same, its pixels given back."""
        return replace(
            self, super_batch=replace(self.super_batch, images=self.super_batch.images[:0].clone(), full=None)
        )


@dataclass(frozen=True, kw_only=True)
class SelectedBatch:
    """b_t, what one gradient step is taken on, n_b samples on the model's device.

    Attributes:
        images: float32 (n_b, C, H, W), normalized; full-size ones where thumbnails was scored.
        labels: int64 (n_b,).
        keys: names, length n_b.
        weights: float32 (n_b,), of each sample's loss; ones unless the selector draws by importance.
        il: float32 (n_b,), nats, or None.
        correct: bool (n_b,), did the model predict the label when they were scored? None where not known of all.
        scored: float32 (n_b, C, h, w), normalized: the pixels that they were scored on; `images` itself where no
            thumbnails is read.
        extra: the stream's further columns, (n_b,) each.
        epoch: of the super-batch that completed it.
        state: for the stream's `load_state_dict`: continues after that super-batch (and those of its round).
        super_batch: that super-batch; None for what was waiting in a selector whose state was loaded.
        considered: the super-batches that were chosen from since the last batch: one, unless batches are filled from
            several (a score floor, say) or one gives several (`SelectionConfig.share`).
    """

    images: Tensor
    labels: Tensor
    keys: list[str]
    weights: Tensor
    il: Tensor | None
    correct: Tensor | None = field(repr=False)
    scored: Tensor = field(repr=False)
    extra: dict[str, npt.NDArray[Any]] = field(repr=False)
    epoch: int
    state: dict[str, Any] = field(repr=False)
    super_batch: SuperBatch | None = field(repr=False)
    considered: tuple[Considered, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """On another device; trainers that move batches themselves call this."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=non_blocking)
            for name in ("images", "labels", "weights", "scored")
        }
        il = None if self.il is None else self.il.to(device, non_blocking=non_blocking)
        return replace(self, il=il, **moved)


@dataclass(frozen=True, kw_only=True)
class Samples:
    """m chosen samples that wait for their step, in the order in which they were chosen.

    Attributes:
        images: uint8 (m, C, H, W), which `spec` normalizes.
        scored: uint8 (m, C, h, w), which `scored_spec` normalizes; None where the images were scored.
    """

    images: Tensor
    spec: ImageSpec
    scored: Tensor | None
    scored_spec: ImageSpec
    labels: Tensor
    keys: list[str]
    weights: Tensor
    il: Tensor | None
    correct: Tensor | None
    extra: dict[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.keys)

    def split(self, first: int) -> "tuple[Samples, Samples]":
        """The first ones, and the rest."""
        return self._part(slice(None, first)), self._part(slice(first, None))

    def _part(self, part: slice) -> "Samples":
        return Samples(
            images=self.images[part],
            spec=self.spec,
            scored=None if self.scored is None else self.scored[part],
            scored_spec=self.scored_spec,
            labels=self.labels[part],
            keys=self.keys[part],
            weights=self.weights[part],
            il=None if self.il is None else self.il[part],
            correct=None if self.correct is None else self.correct[part],
            extra={name: column[part] for name, column in self.extra.items()},
        )

    @classmethod
    def concatenated(cls, parts: "Sequence[Samples]") -> "Samples":
        """All of them; of what not all know, nothing."""
        if len(parts) == 1:
            return parts[0]
        il = [part.il for part in parts if part.il is not None]
        correct = [part.correct for part in parts if part.correct is not None]
        scored = [part.scored for part in parts if part.scored is not None]
        shared = [name for name in parts[0].extra if all(name in part.extra for part in parts)]
        return cls(
            images=torch.cat([part.images for part in parts]),
            spec=parts[0].spec,
            scored=torch.cat(scored) if scored else None,
            scored_spec=parts[0].scored_spec,
            labels=torch.cat([part.labels for part in parts]),
            keys=[key for part in parts for key in part.keys],
            weights=torch.cat([part.weights for part in parts]),
            il=torch.cat(il) if len(il) == len(parts) else None,
            correct=torch.cat(correct) if len(correct) == len(parts) else None,
            extra={name: np.concatenate([part.extra[name] for part in parts]) for name in shared},
        )

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, on the CPU; copies, as a slice would be saved with all that it is cut from."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        return {
            **{name: None if tensor is None else tensor.cpu().clone() for name, tensor in tensors.items()},
            "keys": self.keys,
            "spec": self.spec.to_dict(),
            "scored_view": self.scored_spec.to_dict(),
            "extra": {name: column.tolist() for name, column in self.extra.items()},
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], device: torch.device) -> "Samples":
        tensors: dict[str, Any] = {name: state[name] for name in _TENSORS}
        tensors = {name: None if tensor is None else tensor.to(device) for name, tensor in tensors.items()}
        return cls(
            **tensors,
            keys=state["keys"],
            spec=ImageSpec.from_dict(state["spec"]),
            scored_spec=ImageSpec.from_dict(state["scored_view"]),
            extra={name: np.asarray(column) for name, column in state["extra"].items()},
        )
