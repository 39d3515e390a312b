"""The corpus that every loader reads: photographs of 256 x 256 pixels, as class folders of JPEG files."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SIDE = 256  # pixels
MEAN_BYTES = 16_000  # of a file
BATCH = 320
_SAMPLE = 200  # images by which the quality is chosen

Batch = tuple[torch.Tensor, torch.Tensor]  # images uint8 (n, 256, 256, 3) or (n, 3, 256, 256), labels (n,)


def make(photographs: Path, images: Path, count: int) -> int:
    """Crop and resize photographs (any folder with folders of JPEGs) to `images/<class>/<number>.jpg`.

    Returns:
        The JPEG quality which makes a mean of about `MEAN_BYTES`.
    """
    sources = sorted(photographs.rglob("*.jpg"))
    if len(sources) < count:
        raise SystemExit(
            f"{photographs} holds {len(sources)} JPEGs, {count} are asked for: give --count {len(sources)}"
        )
    if len({path.parent.name for path in sources}) < 2:
        raise SystemExit(f"{photographs}: its JPEGs lie in one folder; give a folder of class folders")
    step = len(sources) / count
    chosen = [sources[int(number * step)] for number in range(count)]
    sample = [_square(path) for path in chosen[:: max(1, count // _SAMPLE)]]
    sizes = {quality: float(np.mean([len(_jpeg(image, quality)) for image in sample])) for quality in range(60, 99, 2)}
    quality = min(sizes, key=lambda quality: abs(sizes[quality] - MEAN_BYTES))
    for number, path in enumerate(chosen):
        target = images / path.parent.name / f"{number:06d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_jpeg(_square(path), quality))
    return quality


def files(images: Path) -> list[tuple[Path, int]]:
    """(file, label) of every image."""
    classes = sorted(folder.name for folder in images.iterdir())
    return [(path, classes.index(path.parent.name)) for path in sorted(images.rglob("*.jpg"))]


def _square(path: Path) -> Image.Image:
    image = Image.open(path).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
