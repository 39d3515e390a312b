"""torchvision's ImageFolder and a DataLoader."""

from collections.abc import Iterator
from pathlib import Path

import simplejpeg
import torch
from corpus import BATCH, Batch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2.functional import pil_to_tensor

VARIANTS = ("PIL", "simplejpeg")
WORKERS = (0, 1, 2)


def prepare(images: Path, folder: Path) -> None:
    folder.symlink_to(images)


def batches(folder: Path, variant: str, workers: int) -> Iterator[Batch]:
    if variant == "PIL":
        dataset = ImageFolder(str(folder), transform=pil_to_tensor)
    else:
        dataset = ImageFolder(str(folder), loader=_load)
    loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    while True:
        yield from loader


def _load(path: str) -> torch.Tensor:
    return torch.from_numpy(simplejpeg.decode_jpeg(Path(path).read_bytes(), "RGB"))
