"""Hashes of sample keys: the same in every process and on every machine."""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

# Seeds, here together so that no two purposes share one: samples kept for validation, evaluated, remembered, clustered.
VALIDATION: Final = 1
EVALUATED: Final = 2
REMEMBERED: Final = 3
CLUSTERED: Final = 4


def key_hash(key: str, seed: int) -> int:
    """64 bits of a key, XXH3; another seed for another purpose gives hashes that have nothing to do with these."""
    return xxh3_64_intdigest(key.encode(), seed)


def key_hashes(keys: Iterable[str], seed: int) -> npt.NDArray[np.uint64]:
    """uint64 (n,): `key_hash` of each."""
    return np.fromiter((xxh3_64_intdigest(key.encode(), seed) for key in keys), np.uint64)
