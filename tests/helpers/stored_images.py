"""Stored images to read: a workspace of tars written by hand, and what is in them."""

import hashlib
import io
import tarfile
import time
from pathlib import Path

import numpy as np

from helpers.support import jpeg
from rhostream.loaders.decode.image_reader import ImageReader
from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.loaders.decode.stored_refs import StoredRefs
from rhostream.loaders.storage.workspace import Workspace

TARS = ("shards/train-000000.tar", "shards/train-000001.tar")


class Stored:
    """`count` JPEGs of 24x16 pixels in two tars; `files[i]` are the bytes of image i.

    Args:
        broken: images that are no images.
    """

    def __init__(self, folder: Path, count: int, broken: tuple[int, ...] = ()) -> None:
        self.workspace = Workspace(folder)
        self.files = [b"no image" if number in broken else jpeg(number) for number in range(count)]
        self.numbers = np.arange(count) % len(TARS)
        self.offsets = np.zeros(count, np.int64)
        for number, tar in enumerate(TARS):
            with self.workspace.writing(tar) as stream, tarfile.open(fileobj=stream, mode="w") as writer:
                for image in np.flatnonzero(self.numbers == number):
                    self.offsets[image] = writer.offset + 512
                    info = tarfile.TarInfo(f"{image}.jpg")
                    info.size = len(self.files[image])
                    writer.addfile(info, io.BytesIO(self.files[image]))

    def refs(self, images: list[int], *, hashed: bool = False) -> StoredRefs:
        return StoredRefs(
            tars=TARS,
            numbers=self.numbers[images].astype(np.int32),
            offsets=self.offsets[images],
            sizes=np.array([len(self.files[image]) for image in images], np.int64),
            hashes=[hashlib.sha256(self.files[image]).hexdigest()[:32] for image in images] if hashed else None,
        )

    def pixels(self, images: list[int], spec: ImageSpec) -> np.ndarray:
        """uint8 (n, C, S, S), one by one."""
        return np.stack([spec.pixels(self.files[image]) for image in images])


def started(reader: ImageReader, stored: Stored, count: int) -> list[int]:
    """Process ids of the reader's processes, all of which decode now."""
    deadline = time.monotonic() + 120
    while True:
        reader.submit(stored.refs(list(range(len(stored.files)))), ImageSpec(size=16)).result()
        workers = reader._engine.pool._workers  # type: ignore[union-attr]
        if len(reader.processes) == count and all(worker.process._ready for worker in workers):  # type: ignore[union-attr]
            return reader.processes
        assert time.monotonic() < deadline
        time.sleep(0.02)


def runs(pid: int) -> bool:
    """False for a zombie as well."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
