"""litdata: optimized chunks of 64 MB, shuffled, in its StreamingDataLoader.

Its own decoder ("torchvision") of images that were stored as JPEG, and simplejpeg of what was stored as bytes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litdata
import simplejpeg
import torch
from corpus import BATCH, Batch, files
from PIL import Image

VARIANTS = ("torchvision", "simplejpeg")
WORKERS = (0, 1, 2)


def prepare(images: Path, folder: Path) -> None:
    for variant, sample in (("torchvision", _image), ("simplejpeg", _bytes)):
        litdata.optimize(sample, files(images), str(folder / variant), chunk_bytes="64MB", num_workers=1)


def batches(folder: Path, variant: str, workers: int) -> Iterator[Batch]:
    kind = litdata.StreamingDataset if variant == "torchvision" else _Decoded
    dataset = kind(str(folder / variant), shuffle=True)
    loader = litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0)
    while True:
        for batch in loader:
            yield batch["image"], batch["label"]


def _image(sample: tuple[Path, int]) -> dict[str, Any]:
    return {"image": Image.open(sample[0]), "label": sample[1]}


def _bytes(sample: tuple[Path, int]) -> dict[str, Any]:
    return {"image": sample[0].read_bytes(), "label": sample[1]}


class _Decoded(litdata.StreamingDataset):
    def __getitem__(self, index: Any) -> dict[str, Any]:
        sample = super().__getitem__(index)
        return {**sample, "image": torch.from_numpy(simplejpeg.decode_jpeg(sample["image"], "RGB"))}
