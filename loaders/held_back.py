"""Samples held back from training: a share of the corpus that a run measures its progress on."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def held_back(keys: Sequence[str], share: float) -> npt.NDArray[np.bool_]:
    """bool (n,): which samples a share in [0, 1] of the corpus holds; a function of each key alone."""
    below = int(share * 2**64)
    hashes = (hashlib.blake2b(key.encode(), digest_size=8, key=b"rhostream held back").digest() for key in keys)
    return np.fromiter((int.from_bytes(digest) < below for digest in hashes), bool, len(keys))
