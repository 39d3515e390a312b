"""Super-batches of image-text pairs and a small two-tower model, made in memory."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rhostream import ImageSpec, SuperBatch, TextSpec
from rhostream.loaders.reference import PairReference
from rhostream.loaders.stream import CandidateTable, Part
from rhostream.loaders.stream.ranks import Chunks

SIDE, WORDS, WIDTH = 4, 6, 8
SPECS = {"image": ImageSpec(size=SIDE), "text": TextSpec(length=WORDS)}


class Towers(nn.Module):
    """Linear towers, whose embeddings depend on nothing else of the batch."""

    def __init__(self, scale: float = 10.0, bias: float | None = -3.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.words = nn.Linear(3 * SIDE * SIDE, WIDTH), nn.Embedding(64, WIDTH)
        self.scale, self.bias = scale, None if bias is None else nn.Parameter(torch.tensor(bias))

    def forward(self, images: torch.Tensor, tokens: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        there = tokens["attention_mask"][..., None]
        texts = (self.words(tokens["input_ids"] % 64) * there).sum(1)
        found = {
            "image_features": F.normalize(self.image(images.flatten(1)), dim=1),
            "text_features": F.normalize(texts, dim=1),
            "logit_scale": torch.tensor(self.scale),
        }
        return found if self.bias is None else found | {"logit_bias": self.bias}


def pairs_super_batch(
    n: int = 24, *, epoch: int = 0, index: int = 0, reference: PairReference | None = None
) -> SuperBatch:
    """n pairs that follow from epoch and index, with embeddings of a reference where one is given."""
    random = torch.Generator().manual_seed(1000 * epoch + index)
    images = torch.randint(0, 256, (n, 3, SIDE, SIDE), generator=random, dtype=torch.uint8)
    texts = torch.randint(2, 64, (n, WORDS), generator=random, dtype=torch.int32)
    one, two = (F.normalize(torch.randn(n, WIDTH, generator=random), dim=1).half() for _ in range(2))
    table = CandidateTable(
        keys=[f"p{epoch}-{index}-{at}" for at in range(n)],
        shards=["train-000000"] * n,
        rows=np.arange(n, dtype=np.int32),
        labels=np.zeros(n, np.int32),
        il=None,
    )
    return SuperBatch(
        fields={"image": images, "text": texts},
        labels=torch.zeros(n, dtype=torch.int64),
        il=None,
        candidates=table,
        passed_over=table.take(slice(0, 0)),
        specs=dict(SPECS),
        epoch=epoch,
        index=index,
        size=n,
        state={"epoch": epoch, "position": index, "seed": 0, "order": "made"},
        image_embedding=None if reference is None else one,
        text_embedding=None if reference is None else two,
        reference=reference,
    )


class InMemory:
    """Reads images of a whole super-batch in place of `FullImages`."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.found = images, images[:0]

    def reader(self) -> "InMemory":
        return self

    def submit(self, positions: Any) -> "InMemory":
        made = InMemory(self.images)
        made.found = self.images[torch.from_numpy(positions)]
        return made

    def result(self) -> tuple[Any, list[Any]]:
        return self.found.numpy(), []


def shared_out(whole: SuperBatch, rank: int, ranks: int, chunk: int) -> SuperBatch:
    """The part of it that a rank reads; of the texts every rank knows all."""
    chunks = Chunks.of(len(whole), chunk, ranks)
    positions = chunks.positions(rank)
    images: Any = {"image": InMemory(whole.images)}
    without = replace(whole, fields={"image": whole.images[:0], "text": whole.fields["text"]})
    part = Part(whole=without, chunks=chunks, rank=rank, positions=positions, images=images)
    return replace(whole.take(positions), part=part)


def stream_of(batches: int, **settings: Any) -> Iterator[SuperBatch]:
    return (pairs_super_batch(index=index, **settings) for index in range(batches))
