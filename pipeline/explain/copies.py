"""Images that look the same, though their bytes may differ: equal files, and copies encoded, resized or cropped again.

Pairs whose perceptual hashes (Zauner 2010: signs of the lowest frequencies of the cosine transform) nearly agree are
laid onto each other and compared pixel by pixel, see `likeness`. Each image has two hashes, of all of it and of what a
crop leaves. Photographs are told apart well, drawings that differ in a few lines are not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rhostream.errors import ConfigError
from rhostream.loaders.decode import ImageSpec, InputReader, ReadOptions, StoredRefs
from rhostream.loaders.index import CorpusMetadata, Shard, current_thumbnails, read_shard_rows, read_thumbnail_rows
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.explain.alignment import brightness, likeness, stretched
from rhostream.pipeline.jobs import progress

MOST_IMAGES: Final = 50_000  # that are compared, each with all others: some seconds
MOST_ALIGNED: Final = 100_000  # pairs that are compared pixel by pixel, those of the nearest hashes: a millisecond each
MOST_KEPT: Final = 10_000  # pairs
_SPEC: Final = ImageSpec(size=32)
_FREQUENCIES: Final = 8  # of each axis, that the 64 bits are of
_BITS: Final = 10  # that may differ
_CROPPED: Final = 0.93  # of each axis, that the second hash is of
_LIKENESS: Final = 0.94  # of two copies, at the least
_BATCH: Final = 256  # images at once
_ALIGNED: Final = 1024  # pairs at once


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two images that look the same.

    Attributes:
        first, second: their keys.
        likeness: see `rhostream.pipeline.explain.alignment.likeness`.
        differs: are their labels, or captions, different?
    """

    first: str
    second: str
    likeness: float
    differs: bool


@dataclass(frozen=True, kw_only=True)
class Copies:
    """The pairs that were found, those under different labels first, then the most alike.

    Attributes:
        pairs: some of them.
        found: how many there are.
        looked_at: images that were compared.
        images: how many there are in these splits.
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
    workspace: Workspace,
    corpus: CorpusMetadata,
    *,
    splits: Sequence[str] = ("train",),
    images: int = MOST_IMAGES,
    pairs: int = MOST_KEPT,
) -> Copies:
    """Compare the first images of these splits, read from thumbnails of 32 pixels or more where there are any.

    Args:
        images: how many at most.
        pairs: how many to keep.

    Raises:
        ConfigError: the corpus is of texts.
        WorkspaceError, ShardError: the index, or a tar, is missing or damaged.
    """
    if corpus.input_field != "image":
        raise ConfigError("copies are looked for among images, and this corpus is of texts")
    shards = tuple(shard for split in splits for shard in corpus.split(split))
    total = sum(shard.rows for shard in shards)
    keys, labels = list[str](), list[Any]()
    pixels = np.empty((min(images, total), 3, _SPEC.size, _SPEC.size), np.uint8)
    hashes = np.empty((2, len(pixels)), np.uint64)
    with progress("copies", len(pixels), "images") as reporter:
        for of_batch, of_labels, read in _images(workspace, shards, _source(workspace, corpus, splits), images):
            place = slice(len(keys), len(keys) + len(read))
            pixels[place], hashes[:, place] = read, perceptual_hashes(read)
            keys += of_batch
            labels += of_labels
            reporter.advance(len(read))
    best, found = list[tuple[bool, float, int, int]](), 0
    first, second = _near(hashes[:, : len(keys)])
    for start in range(0, len(first), _ALIGNED):
        one, other = (of[start : start + _ALIGNED] for of in (first, second))
        alike = likeness(pixels[one], pixels[other])
        copies = alike >= _LIKENESS
        found += int(copies.sum())
        new = zip(one[copies].tolist(), other[copies].tolist(), alike[copies].tolist(), strict=True)
        best += [(labels[one] != labels[other], like, one, other) for one, other, like in new]
        best = sorted(best, key=lambda pair: (not pair[0], -pair[1], pair[2], pair[3]))[:pairs]
    kept = tuple(
        Pair(first=keys[one], second=keys[other], likeness=like, differs=differs) for differs, like, one, other in best
    )
    return Copies(pairs=kept, found=found, looked_at=len(keys), images=total)


def perceptual_hashes(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """64 bits of each image, and of each without its edges: is a low frequency stronger than their median?

    Args:
        pixels: uint8 (n, 3, side, side).

    Returns:
        uint64 (2, n).
    """
    luma = brightness(pixels.astype(np.float32))
    inner, _ = stretched(pixels.shape[-1], np.array([_CROPPED], np.float32), np.zeros(1, np.float32))
    return np.stack([_signs(luma), _signs(inner @ luma @ inner.transpose(0, 2, 1))])


def _signs(luma: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint64]:
    side = luma.shape[-1]
    steps = (np.arange(side, dtype=np.float32) + 0.5) * np.pi / side
    cosines = np.cos(np.arange(_FREQUENCIES, dtype=np.float32)[:, None] * steps)
    strengths = (cosines @ luma @ cosines.T).reshape(len(luma), -1)
    bits = strengths > np.median(strengths[:, 1:], axis=1, keepdims=True)  # the first is the brightness
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def _source(workspace: Workspace, corpus: CorpusMetadata, splits: Sequence[str]) -> str | None:
    """The smallest thumbnails that serve, by name; None for the images themselves."""
    known = current_thumbnails(workspace, corpus)
    fit = [made for made in known if made.size >= _SPEC.size and set(splits) <= set(made.splits)]
    return min(fit, key=lambda made: made.size).name if fit else None


def _images(
    workspace: Workspace, shards: Sequence[Shard], thumbnails: str | None, most: int
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


def _near(hashes: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions of the images of each pair whose hashes nearly agree, the nearest first."""
    whole, cropped = hashes
    found, most = [np.empty((3, 0), np.int64)], _BITS
    for start in range(0, len(whole), _BATCH):
        block, rest = slice(start, start + _BATCH), slice(start, None)
        apart = np.bitwise_count(whole[block, None] ^ whole[rest])
        for one, other in ((cropped, whole), (whole, cropped)):
            np.minimum(apart, np.bitwise_count(one[block, None] ^ other[rest]), out=apart)
        first, second = np.nonzero(np.triu(apart <= most, 1))
        found.append(np.stack([apart[first, second], first + start, second + start]))
        if sum(part.shape[1] for part in found) > 2 * MOST_ALIGNED:
            found = [_nearest(found)]
            most = int(found[0][0].max())
    _, first, second = _nearest(found)
    return first, second


def _nearest(found: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    pairs = np.concatenate(found, axis=1)
    return pairs[:, np.argsort(pairs[0], kind="stable")[:MOST_ALIGNED]]
