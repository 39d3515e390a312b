"""Samples as a model takes them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Self

import torch
from torch import Tensor

#: The fields that a model takes of a text.
TOKENS: Final = ("input_ids", "attention_mask")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """n samples: named fields, and what is to be predicted of each.

    Attributes:
        fields: tensors of n rows by name. "image" is (n, C, H, W); of texts, "input_ids" and "attention_mask" are
            (n, longest), or as they were read "text", int32, `rhostream.loaders.decode.NO_TOKEN` after the end of each.
        labels: int64 (n,); of a multi-label corpus float32 (n, classes), 1 for the classes of a sample: the targets,
            see `rhostream.loaders.stream.targets`.
    """

    fields: dict[str, Tensor] = field(repr=False)
    labels: Tensor

    #: The tensors of n rows beside the fields; None where there is none.
    _columns: ClassVar[tuple[str, ...]] = ("labels",)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> Tensor:
        """The field "image", (n, C, H, W)."""
        return self.fields["image"]

    @property
    def tokens(self) -> dict[str, Tensor]:
        """Of texts `input_ids` and `attention_mask`, int64 (n, longest)."""
        return {name: self.fields[name] for name in TOKENS}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first field: what the cost of a pass over the batch depends on."""
        return tuple(next(iter(self.fields.values())).shape)

    def pin_memory(self) -> Self:
        """Page-locked tensors, for asynchronous copies to a GPU; `DataLoader(pin_memory=True)` calls this."""
        return self._each_tensor(Tensor.pin_memory)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        return self._each_tensor(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def _each_tensor(self, change: Callable[[Tensor], Tensor], **others: Any) -> Self:
        """The batch with its tensors changed, and `others` of its attributes replaced."""
        columns = {name: getattr(self, name) for name in self._columns}
        changed: dict[str, Any] = {name: None if each is None else change(each) for name, each in columns.items()}
        return replace(self, fields={name: change(field) for name, field in self.fields.items()}, **changed, **others)
