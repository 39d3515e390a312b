"""Embeddings of pairs that the ranks of a job share out, together and with their gradients."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rhostream.loaders.stream import Exchange
from rhostream.selection.tasks.pair_embeddings import PairEmbeddings


def over_ranks(pairs: PairEmbeddings, exchange: Exchange) -> tuple[PairEmbeddings, slice]:
    """The pairs of all ranks, in the order of these, and where this rank's are among them. To be called on every rank.

    The gradient of an embedding is the sum of those on all ranks. So where each rank goes down the mean loss of its own
    pairs, and the gradients of parameters are averaged over the ranks, as DistributedDataParallel does, they are those
    of one process.

    Args:
        pairs: of this rank, whose number may differ from that of the others.
    """
    counts = [int.from_bytes(told, "little") for told in exchange.gathered(len(pairs).to_bytes(8, "little"))]
    rows = torch.cat([pairs.images, pairs.texts], 1)
    together = _Together.apply(rows, counts, exchange.rank, exchange.of_device())
    images, texts = together.chunk(2, dim=1)
    return replace(pairs, images=images, texts=texts), _own(counts, exchange.rank)


def _own(counts: Sequence[int], rank: int) -> slice:
    return slice(sum(counts[:rank]), sum(counts[: rank + 1]))


class _Together(torch.autograd.Function):
    """The rows of all ranks, float32 (n, D), of this rank's, so many on each."""

    @staticmethod
    def forward(context: Any, own: Tensor, counts: Sequence[int], rank: int, group: Any) -> Tensor:
        context.own, context.group = _own(counts, rank), group
        padded = own.new_zeros(max(counts), own.shape[1])  # messages are of one size
        padded[: len(own)] = own
        found = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(found, padded, group=group)
        return torch.cat([rows[:count] for rows, count in zip(found, counts, strict=True)])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        total = gradient.contiguous().clone()
        dist.all_reduce(total, group=context.group)
        return total[context.own], None, None, None
