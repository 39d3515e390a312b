"""The thumbnails of one shard: every image as it is shown, shrunk, in a tar with an index."""

import io
import json
import sys
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa
from PIL import Image

from rhostream.errors import UndecodableError, WorkspaceError
from rhostream.loaders.decode import content_hash, decode_rgb, image_format, raw_header, read_stored
from rhostream.loaders.index import (
    SHARD_DIGEST_KEY,
    THUMBNAIL_INDEX,
    THUMBNAIL_KEY,
    Shard,
    ShardRows,
    ThumbnailFormat,
    read_shard_rows,
    thumbnail_index,
    thumbnail_tar,
    thumbnails_name,
    undecodable,
)
from rhostream.loaders.storage import ShardReader, UnreadableError, shaped
from rhostream.pipeline.jobs import Advance, Maker, ShardUnit
from rhostream.pipeline.shards import PlainTar

#: Without chroma subsampling, which costs small images more detail than a lower quality of the same size does.
JPEG_QUALITY: Final = 90
#: Of the thumbnails; another one makes every part anew.
FORMAT: Final[dict[ThumbnailFormat, int]] = {"jpeg": 1, "raw": 2}

_READ_AHEAD: Final = 16  # images in work for each thread


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is stored of one shard.

    Attributes:
        original_bytes, bytes: of its samples' originals, and of the thumbnails' tar.
        shrunk: thumbnails with fewer pixels than their sample.
    """

    original_bytes: int
    bytes: int
    shrunk: int


@dataclass(frozen=True, kw_only=True)
class ThumbnailMaker(Maker[ShardUnit, Part]):
    """Makes the thumbnails of shards; the same bytes in any process, with any number of threads.

    Attributes:
        size: their shorter side, pixels; images that are smaller stay as they are.
        threads: that decode and encode.
    """

    size: int
    format: ThumbnailFormat
    threads: int = 1

    @property
    def name(self) -> str:
        return thumbnails_name(self.size, self.format)

    @property
    def folder(self) -> str:
        """What the worker processes hold."""
        return thumbnail_tar(self.name, "").rpartition("/")[0]

    @property
    def quality(self) -> int:
        return JPEG_QUALITY if self.format == "jpeg" else 0

    def made(self, shard: Shard) -> Part | None:
        """What is there of this shard as it is now, None where it must be made (again)."""
        try:
            metadata = (
                self.workspace.read_schema(thumbnail_index(self.name, shard.name), THUMBNAIL_INDEX).metadata or {}
            )
            tar_bytes = self.workspace.size(thumbnail_tar(self.name, shard.name))
            part = shaped(json.loads(metadata.get(THUMBNAIL_KEY, b"")), Part)
        except (FileNotFoundError, WorkspaceError, UnreadableError, ValueError):
            return None
        whole = tar_bytes == part.bytes and metadata == self._metadata(shard, part)
        return part if whole else None

    def __call__(self, unit: ShardUnit, advance: Advance) -> Part:
        """Write the tar of this shard and then its index.

        Raises:
            ShardError: an image cannot be read, does not decode, or is not the one that the index describes.
        """
        shard = unit.shard
        rows = read_shard_rows(self.workspace, shard, ("width", "height"))
        keys = rows.keys.to_pylist()
        offsets, sizes, hashes = [], [], []
        with warnings.catch_warnings(), self.workspace.writing(thumbnail_tar(self.name, shard.name)) as stream:
            warnings.simplefilter("ignore")  # what Pillow says of odd metadata helps nobody a million times
            tar = PlainTar(stream)
            for key, data in zip(keys, self._thumbnails(rows), strict=True):
                offsets.append(tar.add(f"{key}.{image_format(data)}", data))
                sizes.append(len(data))
                hashes.append(content_hash(data))
                advance(1)
            tar_bytes = tar.close()
        shorter = np.minimum(rows.extra["width"], rows.extra["height"])
        part = Part(original_bytes=int(rows.sizes.sum()), bytes=tar_bytes, shrunk=int((shorter > self.size).sum()))
        table = pa.table(
            {"key": keys, "offset": offsets, "size": sizes, "content_hash": hashes},
            schema=THUMBNAIL_INDEX.with_metadata(self._metadata(shard, part)),
        )
        self.workspace.write_table(thumbnail_index(self.name, shard.name), table)
        return part

    def _metadata(self, shard: Shard, part: Part) -> dict[bytes, bytes]:
        """Of the index Parquet: all that decides the thumbnails, and what they came to."""
        values = {
            "thumbnail_format": FORMAT[self.format],
            "size": self.size,
            "format": self.format,
            "quality": self.quality,
            "original_bytes": part.original_bytes,
            "bytes": part.bytes,
            "shrunk": part.shrunk,
        }
        return {SHARD_DIGEST_KEY: shard.digest.encode(), THUMBNAIL_KEY: json.dumps(values).encode()}

    def _thumbnails(self, rows: ShardRows) -> Iterator[bytes]:
        """Those of the shard's samples, in its order, made by threads a little ahead of what is asked for."""
        make = partial(self._thumbnail, ShardReader(self.workspace), rows)
        with ThreadPoolExecutor(self.threads, thread_name_prefix="rhostream-thumbnails") as pool:
            ahead = self.threads * _READ_AHEAD
            pending = deque(pool.submit(make, row) for row in range(min(ahead, len(rows))))
            for row in range(len(rows)):
                data = pending.popleft().result()
                if row + ahead < len(rows):
                    pending.append(pool.submit(make, row + ahead))
                yield data

    def _thumbnail(self, reader: ShardReader, rows: ShardRows, row: int) -> bytes:
        offset, size, expected = int(rows.offsets[row]), int(rows.sizes[row]), rows.hashes[row].as_py()
        try:
            original = read_stored(reader, rows.shard.tar, offset, size, expected)
            return encoded(shrunk(original, self.size), self.format)
        except UndecodableError as error:
            raise undecodable(self.workspace, rows.shard, row, str(error)) from error


def shrunk(original: bytes, size: int) -> Image.Image:
    """The image as it is shown (upright, sRGB, on white), its shorter side `size` pixels, never enlarged.

    It has the pixels that `rhostream.loaders.decode.ImageSpec` would resize the original to, so that scoring the
    thumbnail at this size is scoring the original: decoded at the same scale, on the same grid. What does not fill a
    pixel of that grid on the right or at the bottom (less than one) is left out.
    """
    # What is stored has passed the manifest's bound on pixels: no other one here.
    image = decode_rgb(original, at_least=size, max_pixels=sys.maxsize)
    side = min(image.size)
    if side <= size:
        return image
    width, height = (length * size // side for length in image.size)
    box = (0.0, 0.0, width * side / size, height * side / size)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)


def encoded(image: Image.Image, thumbnail_format: ThumbnailFormat) -> bytes:
    """The file of an RGB image; a raw one of a gray image is gray, a third of the bytes."""
    if thumbnail_format == "raw":
        red, green, blue = image.split()
        if red.tobytes() == green.tobytes() == blue.tobytes():
            return raw_header(*image.size, 1) + red.tobytes()
        return raw_header(*image.size, 3) + image.tobytes()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    return buffer.getvalue()
