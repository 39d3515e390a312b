"""webdataset: tars of 1,000, shuffled by shard and by a buffer of 1,000 undecoded samples, batched in the worker."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import simplejpeg
import webdataset as wds
from corpus import BATCH, Batch, files

VARIANTS = ("PIL", "simplejpeg")
WORKERS = (0, 1, 2)


def prepare(images: Path, folder: Path) -> None:
    folder.mkdir()
    with wds.ShardWriter(str(folder / "%06d.tar"), maxcount=1000, verbose=0) as writer:
        for path, label in files(images):
            writer.write({"__key__": path.stem, "jpg": path.read_bytes(), "cls": label})


def batches(folder: Path, variant: str, workers: int) -> Iterator[Batch]:
    tars = sorted(str(path) for path in folder.glob("*.tar"))
    samples = wds.WebDataset(tars, shardshuffle=len(tars)).repeat().shuffle(1000)
    # "rgb8" is its own decoder, by PIL, to uint8.
    decoded = samples.decode("rgb8" if variant == "PIL" else _decode)
    batched = decoded.to_tuple("jpg", "cls").batched(BATCH)
    yield from wds.WebLoader(batched, batch_size=None, num_workers=workers)


def _decode(key: str, data: bytes) -> Any:
    """A handler of webdataset: None leaves a member to the next one."""
    return simplejpeg.decode_jpeg(data, "RGB") if key.endswith("jpg") else None
