"""What streams gave, in tests."""

import contextlib
import traceback
from collections.abc import Iterable, Iterator

import pytest
import torch
from torch import nn

from rhostream.loaders import SuperBatch


def passed_over(batches: Iterable[SuperBatch]) -> list[tuple[str, str]]:
    """Key and reason of every candidate that was not read."""
    tables = [batch.passed_over for batch in batches if len(batch.passed_over)]
    return [pair for table in tables for pair in zip(table.keys, table.reasons, strict=True)]


def network() -> nn.Module:
    """A small classifier that takes images of any size, of 3 classes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))


@contextlib.contextmanager
def refuses(error: type[Exception], match: str) -> Iterator[None]:
    """`pytest.raises` around a loader with workers, which end here: the error holds them.

    Left to the garbage collector, their queues go before they are told to end, and each is waited for 5 s.
    """
    with pytest.raises(error, match=match) as raised:
        yield
    traceback.clear_frames(raised.tb)
    del raised
