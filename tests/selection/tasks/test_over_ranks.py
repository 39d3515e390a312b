"""The loss of a batch of pairs that ranks share out unevenly: its gradient is that of one process."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from helpers.ranks import on_jobs

from rhostream.loaders.stream import Batch, Exchange
from rhostream.selection import Pairs

LOSSES = ("sigmoid", "softmax")
#: Rows of each rank.
SHARES = (slice(0, 5), slice(5, 8), slice(8, 9))
ROWS = 9


def loss_of(weights: torch.Tensor, rows: slice, task: Pairs) -> torch.Tensor:
    """Of a linear model on some of nine pairs: the sum of their parts in the mean loss of all."""
    inputs = torch.randn(2, ROWS, 4, generator=torch.Generator().manual_seed(1))[:, rows]
    outputs = {
        "image_features": F.normalize(inputs[0] @ weights[:4], dim=1),
        "text_features": F.normalize(inputs[1] @ weights[4:8], dim=1),
        "logit_scale": weights[8, 0].exp(),
        "logit_bias": weights[8, 1],
    }
    return task.losses(outputs, Batch(fields={}, labels=torch.zeros(len(inputs[0])))).sum() / ROWS


def start() -> torch.Tensor:
    return torch.randn(9, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()


def gradients() -> list[list[list[float]]]:
    """By the loss the mean gradient over the ranks, each of which weighs its loss by their number."""
    dist.init_process_group("gloo")
    exchange, found = Exchange(), []
    for loss in LOSSES:
        weights = start()
        task = Pairs(loss=loss, exchange=exchange)  # type: ignore[arg-type]
        (exchange.size * loss_of(weights, SHARES[exchange.rank], task)).backward()
        assert weights.grad is not None
        dist.all_reduce(weights.grad)
        found.append((weights.grad / exchange.size).tolist())
    return found


@pytest.mark.slow
def test_gradient_over_ranks_is_that_of_one_process():
    (by_rank,) = on_jobs("selection.tasks.test_over_ranks", [(3, "gradients", [])])
    assert by_rank[0] == by_rank[1] == by_rank[2]
    for loss, found in zip(LOSSES, by_rank[0], strict=True):
        weights = start()
        loss_of(weights, slice(0, ROWS), Pairs(loss=loss)).backward()
        torch.testing.assert_close(torch.tensor(found), weights.grad, rtol=1e-5, atol=1e-6)
