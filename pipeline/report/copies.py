"""Training images that look the same, though their bytes may differ: equal files, and copies encoded or resized again.

Pairs whose perceptual hashes (Zauner 2010: signs of the lowest frequencies of the cosine transform) nearly agree are
compared pixel by pixel. Photographs are told apart well, drawings that differ in a few lines are not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rhostream.errors import ConfigError
from rhostream.loaders.decode import ImageSpec, InputReader, ReadOptions, StoredRefs
from rhostream.loaders.index import CorpusMetadata, Shard, current_thumbnails, read_shard_rows, read_thumbnail_rows
from rhostream.loaders.storage import Workspace

MOST_IMAGES: Final = 50_000  # that are compared, each with all others: some seconds
MOST_PAIRS: Final = 24  # that are shown
_SPEC: Final = ImageSpec(size=32)
_FREQUENCIES: Final = 8  # of each axis, that the 64 bits are of
_BITS: Final = 8  # that may differ
_CORRELATION: Final = 0.985  # of the pixels of two copies, at the least
_GRID: Final = 16  # cells of each axis, that pixels are averaged in to be compared
_BATCH: Final = 256  # images at once
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Keys of two images that look the same, and whether their labels, or captions, differ."""

    first: str
    second: str
    differs: bool


@dataclass(frozen=True, kw_only=True)
class Copies:
    """The pairs that were found, those under different labels first, then the most alike.

    Attributes:
        pairs: some of them.
        found: how many there are.
        looked_at: images that were compared.
        images: training images of the corpus.
    """

    pairs: tuple[Pair, ...]
    found: int
    looked_at: int
    images: int

    def alike(self, key: str) -> list[str]:
        """What looks like this image, in the order of the pairs."""
        return [
            pair.second if key == pair.first else pair.first for pair in self.pairs if key in (pair.first, pair.second)
        ]

    @property
    def keys(self) -> list[str]:
        """Of all pairs, each once, beside what it looks like."""
        return list(dict.fromkeys(key for pair in self.pairs for key in (pair.first, pair.second)))


def find_copies(
    workspace: Workspace, corpus: CorpusMetadata, *, images: int = MOST_IMAGES, pairs: int = MOST_PAIRS
) -> Copies:
    """Compare the first training images, read from thumbnails of 32 pixels or more where there are any.

    Args:
        images: how many at most.
        pairs: how many to keep.

    Raises:
        ConfigError: the corpus is of texts.
        WorkspaceError, ShardError: the index, or a tar, is missing or damaged.
    """
    if corpus.input_field != "image":
        raise ConfigError("--near-duplicates: these are looked for among images, and this corpus is of texts")
    shards = corpus.split("train")
    keys, labels = list[str](), list[Any]()
    hashes, cells = list[npt.NDArray[np.uint64]](), list[npt.NDArray[np.uint8]]()
    for of_batch, of_labels, pixels in _images(workspace, shards, _source(workspace, corpus), images):
        keys += of_batch
        labels += of_labels
        hashes.append(perceptual_hashes(pixels))
        cells.append(_cells(pixels))
    best, found = list[tuple[bool, float, int, int]](), 0
    if keys:
        for first, second, alike in _pairs(np.concatenate(hashes), np.concatenate(cells)):
            found += len(first)
            new = zip(first.tolist(), second.tolist(), alike.tolist(), strict=True)
            best += [(labels[one] != labels[other], likeness, one, other) for one, other, likeness in new]
            best = sorted(best, key=lambda pair: (not pair[0], -pair[1], pair[2], pair[3]))[:pairs]
    kept = tuple(Pair(first=keys[one], second=keys[other], differs=differs) for differs, _, one, other in best)
    return Copies(pairs=kept, found=found, looked_at=len(keys), images=sum(shard.rows for shard in shards))


def perceptual_hashes(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """64 bits of each image: is each of its lowest frequencies stronger than their median?

    Args:
        pixels: uint8 (n, 3, side, side).
    """
    side = pixels.shape[-1]
    steps = (np.arange(side, dtype=np.float32) + 0.5) * np.pi / side
    cosines = np.cos(np.arange(_FREQUENCIES, dtype=np.float32)[:, None] * steps)
    luma = np.tensordot(pixels.astype(np.float32), _LUMA, (1, 0))
    strengths = (cosines @ luma @ cosines.T).reshape(len(pixels), -1)
    bits = strengths > np.median(strengths[:, 1:], axis=1, keepdims=True)  # the first is the brightness
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def _source(workspace: Workspace, corpus: CorpusMetadata) -> str | None:
    """The smallest thumbnails that serve, by name; None for the images themselves."""
    fit = [made for made in current_thumbnails(workspace, corpus) if made.size >= _SPEC.size and "train" in made.splits]
    return min(fit, key=lambda made: made.size).name if fit else None


def _images(
    workspace: Workspace, shards: tuple[Shard, ...], thumbnails: str | None, most: int
) -> Iterator[tuple[list[str], list[Any], npt.NDArray[np.uint8]]]:
    """Keys, labels and pixels, batch by batch; an image that cannot be decoded is left out."""
    reader, left = InputReader(workspace, ReadOptions(workers=0)), most
    try:
        for shard in shards:
            rows = read_shard_rows(workspace, shard)
            stored = None if thumbnails is None else read_thumbnail_rows(workspace, thumbnails, rows)
            tar, of = (shard.tar, rows) if stored is None else (stored.tar, stored)
            refs = StoredRefs(
                tars=[tar],
                numbers=np.zeros(len(rows), np.int32),
                offsets=of.offsets,
                sizes=of.sizes,
                hashes=of.hashes.to_pylist(),
            )
            keys, labels = rows.keys.to_pylist(), rows.labels if rows.texts is None else rows.texts
            for start in range(0, min(len(rows), left), _BATCH):
                numbers = np.arange(start, min(start + _BATCH, len(rows), left))
                pixels, failures = reader.submit(refs.take(numbers), _SPEC).result()
                whole = np.setdiff1d(np.arange(len(numbers)), [at for at, _ in failures])
                chosen = numbers[whole].tolist()
                yield [keys[at] for at in chosen], [_label(labels[at]) for at in chosen], pixels[whole]
            left -= min(len(rows), left)
            if not left:
                return
    finally:
        reader.close()


def _label(label: Any) -> Any:
    return label.as_py() if hasattr(label, "as_py") else int(label)


def _cells(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The pixels of each image, averaged in a coarse grid: uint8 (n, 3 * cells)."""
    step = pixels.shape[-1] // _GRID
    averaged = pixels.reshape(len(pixels), 3, _GRID, step, _GRID, step).mean(axis=(3, 5))
    cells: npt.NDArray[np.uint8] = averaged.round().astype(np.uint8).reshape(len(pixels), -1)
    return cells


def _pairs(
    hashes: npt.NDArray[np.uint64], cells: npt.NDArray[np.uint8]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Positions of the images of each pair, and how their pixels correlate."""
    for start in range(0, len(hashes), _BATCH):
        block = hashes[start : start + _BATCH]
        near = np.bitwise_count(block[:, None] ^ hashes[None, start:]) <= _BITS
        one, other = np.nonzero(np.triu(near, 1))
        for part in range(0, len(one), _BATCH * 16):
            first, second = (of[part : part + _BATCH * 16] + start for of in (one, other))
            alike = (_centered(cells[first]) * _centered(cells[second])).sum(axis=1)
            copies = alike >= _CORRELATION
            yield first[copies], second[copies], alike[copies]


def _centered(cells: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Of mean 0 and length 1; all 0 where an image has one color."""
    values = cells.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    values /= np.where(length > 0, length, 1)
    return values
