"""Flexi-JEST's other half (arXiv 2406.17711, section 4.3): a part of each batch is trained on at the low resolution."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rhostream.selection.selected_batch import SelectedBatch
from rhostream.selection.tasks import Pairs

_ROWS = ("image_features", "text_features")


def mixed_outputs(model: nn.Module, batch: SelectedBatch, task: Pairs, share: float) -> Mapping[str, Tensor]:
    """What the model makes of a batch of pairs, a share of it by the thumbnails, as one batch in its order.

    Args:
        batch: with the field "thumbnail". Those of a low resolution are spread evenly over it, or over that of all
            ranks, as the highest scores come first.
        share: in (0, 1].
    """
    places = range(len(batch)) if batch.places is None else batch.places.tolist()
    lows = [math.floor((at + 1) * share) > math.floor(at * share) for at in places]
    low = torch.tensor(lows, device=batch.images.device)
    parts = [_at(batch, low, batch.thumbnails), _at(batch, ~low, batch.images)]
    found: list[Mapping[str, Tensor]] = [task.outputs(model, part) for part in parts if len(part)]
    if len(found) == 1:
        return found[0]
    order = torch.cat([low.nonzero()[:, 0], (~low).nonzero()[:, 0]]).argsort()
    rows = {name: torch.cat([each[name] for each in found])[order] for name in _ROWS}
    return {**found[0], **rows}


def _at(batch: SelectedBatch, chosen: Tensor, images: Tensor) -> Any:
    """The pairs that are chosen, bool (n_b,), with these images in the place of the batch's."""
    fields = {name: field[chosen] for name, field in batch.fields.items() if name != "thumbnail"}
    return replace(batch, fields={**fields, "image": images[chosen]}, labels=batch.labels[chosen])
