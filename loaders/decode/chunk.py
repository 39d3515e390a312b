"""A chunk of images: the unit of work of a decoding thread or process."""

from rhostream.errors import UndecodableError
from rhostream.loaders.decode.augmentation import Augmentation
from rhostream.loaders.decode.pixels import Pixels, fill_pixels
from rhostream.loaders.decode.stored import read_stored
from rhostream.loaders.decode.stored_refs import StoredRefs
from rhostream.loaders.storage import ShardReader

Failures = list[tuple[int, str]]


def decode_chunk(
    shards: ShardReader, refs: StoredRefs, augmentation: Augmentation, into: Pixels, *, whole: bool
) -> Failures:
    """Read and decode images.

    Args:
        into: uint8 (n, size, size, channels), contiguous, filled.
        whole: see `ShardReader.read`.

    Returns:
        (position, reason) of those that do not decode, or do not have their hash.

    Raises:
        ShardError: a tar has vanished or is truncated.
    """
    failures = []
    tars, hashes, seeds = refs.tars, refs.hashes, refs.augmentation_seeds
    where = zip(refs.numbers.tolist(), refs.offsets.tolist(), refs.sizes.tolist(), strict=True)
    for position, (number, offset, size) in enumerate(where):
        try:
            expected = None if hashes is None else hashes[position]
            data = read_stored(shards, tars[number], offset, size, expected, whole=whole)
            fill_pixels(into[position], data, augmentation, seeds[position] if seeds else "")
        except UndecodableError as error:
            failures.append((position, str(error)))
    return failures
