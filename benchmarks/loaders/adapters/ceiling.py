"""The C decoder alone: as many processes as there are cores, from bytes in memory into one buffer used again."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from corpus import BATCH, SIDE, Batch, files

VARIANTS = ("simplejpeg",)
WORKERS = (0,)


def prepare(images: Path, folder: Path) -> None:
    folder.symlink_to(images)


def batches(folder: Path, variant: str, workers: int) -> Iterator[Batch]:
    """With `workers` processes: each decodes for itself, and tells when it has decoded a batch."""
    if workers == 0:
        yield from _decoded(folder)
    context = multiprocessing.get_context("spawn")
    queue: Any = context.SimpleQueue()
    for _ in range(workers):
        context.Process(target=_decode, args=(folder, queue), daemon=True).start()
    placeholder = next(_decoded(folder))
    while True:
        queue.get()
        yield placeholder


def _decode(folder: Path, queue: Any) -> None:
    for _ in _decoded(folder):
        queue.put(None)


def _decoded(folder: Path) -> Iterator[Batch]:
    listing = files(folder)
    data = [path.read_bytes() for path, _ in listing]
    buffer = np.zeros((BATCH, SIDE, SIDE, 3), np.uint8)
    labels = torch.zeros(BATCH, dtype=torch.int64)
    order = np.random.default_rng(0)
    while True:
        for slot, number in enumerate(order.integers(0, len(data), BATCH).tolist()):
            simplejpeg.decode_jpeg(data[number], "RGB", buffer=buffer[slot])
        yield torch.from_numpy(buffer), labels
