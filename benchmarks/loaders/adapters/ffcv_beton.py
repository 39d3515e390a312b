"""FFCV: a .beton that holds the same JPEG files, decoded by its own threads (libjpeg-turbo)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ffcv.fields.rgb_image
import numpy as np
from corpus import BATCH, Batch, files
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import Squeeze, ToTensor
from ffcv.writer import DatasetWriter
from PIL import Image

VARIANTS = ("libjpeg-turbo",)
WORKERS = (1, 2)


def prepare(images: Path, folder: Path) -> None:
    folder.mkdir()
    # Its writer would compress every image once more: it is given the file instead.
    ffcv.fields.rgb_image.encode_jpeg = lambda image, quality: np.frombuffer(image.file, np.uint8)
    fields = {"image": RGBImageField(write_mode="jpg"), "label": IntField()}
    writer = DatasetWriter(str(folder / "train.beton"), fields, num_workers=1)
    writer.from_indexed_dataset(_Files(files(images)))


def batches(folder: Path, variant: str, workers: int) -> Iterator[Batch]:
    loader = Loader(
        str(folder / "train.beton"),
        batch_size=BATCH,
        num_workers=workers,
        order=OrderOption.RANDOM,
        os_cache=True,
        pipelines={"image": [SimpleRGBImageDecoder(), ToTensor()], "label": [IntDecoder(), ToTensor(), Squeeze()]},
    )
    while True:
        yield from loader


class _WithFile(np.ndarray):
    """Pixels that know the file they came from."""

    file: bytes


class _Files:
    def __init__(self, listing: list[tuple[Path, int]]) -> None:
        self._listing = listing

    def __len__(self) -> int:
        return len(self._listing)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self._listing[index]
        pixels = np.asarray(Image.open(path)).view(_WithFile)
        pixels.file = path.read_bytes()
        return pixels, label
