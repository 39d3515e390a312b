"""Hugging Face datasets: a saved Arrow dataset with its Image feature, in a DataLoader."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import simplejpeg
import torch
from corpus import BATCH, Batch, files
from torch.utils.data import DataLoader

VARIANTS = ("PIL", "simplejpeg")
WORKERS = (0, 1, 2)


def prepare(images: Path, folder: Path) -> None:
    listing = files(images)
    columns = {
        "image": [{"bytes": path.read_bytes(), "path": None} for path, _ in listing],
        "label": [label for _, label in listing],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict(columns, features).save_to_disk(str(folder))


def batches(folder: Path, variant: str, workers: int) -> Iterator[Batch]:
    dataset: Any = datasets.load_from_disk(str(folder))
    if variant == "simplejpeg":
        dataset = dataset.cast_column("image", datasets.Image(decode=False))
    dataset = dataset.with_transform(_pillow if variant == "PIL" else _simplejpeg)
    loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    while True:
        for batch in loader:
            yield batch["image"], batch["label"]


def _pillow(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {**rows, "image": [torch.from_numpy(np.array(image)) for image in rows["image"]]}


def _simplejpeg(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    decoded = [torch.from_numpy(simplejpeg.decode_jpeg(image["bytes"], "RGB")) for image in rows["image"]]
    return {**rows, "image": decoded}
