"""Passes over texts of unlike lengths: sorted by length and cut, so that little of what is computed is padding."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from rhostream.loaders.stream import Batch
from rhostream.selection.tasks import logits_of

_LEAST_TOKENS: Final = 1_024  # of a chunk: a pass over fewer costs more than padding does
_MOST_CHUNKS: Final = 8
#: Texts of a chunk, and tokens of the longest, are multiples of these: few shapes, whose FLOPs are soon known.
_TEXTS, _TOKENS = 16, 8


def even_chunks(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Bounds of the chunks of texts in ascending order of length, about equal in texts times longest.

    Args:
        lengths: tokens of each, ascending.

    Returns:
        (first, end) of each chunk; one where the texts are few or alike.
    """
    total = sum(lengths)
    count = max(1, min(_MOST_CHUNKS, total // _LEAST_TOKENS))
    if count == 1 or lengths[0] == lengths[-1]:
        return [(0, len(lengths))]
    share, first, tokens = total / count, 0, 0
    bounds: list[tuple[int, int]] = []
    for number, length in enumerate(lengths, 1):
        tokens += length
        if tokens >= share * (len(bounds) + 1) and number % _TEXTS == 0:
            bounds.append((first, number))
            first = number
    if first < len(lengths):
        bounds.append((first, len(lengths)))
    return bounds


def in_even_chunks(run: Callable[[Batch], Any], batch: Batch) -> Any:
    """What `run` gives of the batch: of one that is cut the logits, float32 (n, …), in the batch's order.

    Args:
        run: a pass over a part of the batch, in which no sample's row depends on the others.
        batch: of texts with `input_ids` and `attention_mask`; any other one is run as it is.
    """
    mask = batch.fields.get("attention_mask")
    if mask is None or len(batch) < 2:
        return run(batch)
    ascending, order = mask.sum(1).sort(stable=True)
    lengths = ascending.tolist()
    bounds = even_chunks(lengths)
    if len(bounds) == 1:
        return run(batch)
    rows = torch.cat([logits_of(run(chunk)) for chunk in _cut(batch, order, lengths, bounds)])
    return torch.empty_like(rows).index_copy_(0, order, rows)


def _cut(batch: Batch, order: Tensor, lengths: Sequence[int], bounds: list[tuple[int, int]]) -> Iterator[Batch]:
    for first, end in bounds:
        rows, longest = order[first:end], -(-max(lengths[end - 1], 1) // _TOKENS) * _TOKENS
        fields = {name: field[rows, :longest] for name, field in batch.fields.items()}
        yield Batch(fields=fields, labels=batch.labels[rows])
