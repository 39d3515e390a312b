"""MosaicML streaming: MDS shards, shuffled, in a DataLoader."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from corpus import BATCH, Batch, files
from PIL import Image
from streaming import MDSWriter, StreamingDataset
from streaming.base.util import clean_stale_shared_memory
from torch.utils.data import DataLoader

VARIANTS = ("PIL", "simplejpeg")
WORKERS = (0, 1, 2)


def prepare(images: Path, folder: Path) -> None:
    for variant, encoding in (("PIL", "jpeg"), ("simplejpeg", "bytes")):
        with MDSWriter(out=str(folder / variant), columns={"image": encoding, "label": "int"}) as writer:
            for path, label in files(images):
                # Of an image that was opened from a file, its "jpeg" encoding stores the file.
                image = Image.open(path) if variant == "PIL" else path.read_bytes()
                writer.write({"image": image, "label": label})


def batches(folder: Path, variant: str, workers: int) -> Iterator[Batch]:
    clean_stale_shared_memory()
    kind = _Pillow if variant == "PIL" else _Simplejpeg
    dataset = kind(local=str(folder / variant), shuffle=True, batch_size=BATCH)
    loader: DataLoader[Any] = DataLoader(dataset, BATCH, num_workers=workers, persistent_workers=workers > 0)
    while True:
        for batch in loader:
            yield batch["image"], batch["label"]


class _Pillow(StreamingDataset):
    def __getitem__(self, index: Any) -> dict[str, Any]:
        sample = super().__getitem__(index)
        return {**sample, "image": torch.from_numpy(np.array(sample["image"]))}


class _Simplejpeg(StreamingDataset):
    def __getitem__(self, index: Any) -> dict[str, Any]:
        sample = super().__getitem__(index)
        return {**sample, "image": torch.from_numpy(simplejpeg.decode_jpeg(sample["image"], "RGB"))}
