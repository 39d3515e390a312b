"""Samples kept from training: a share of the corpus that a run measures its progress on."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rhostream.loaders.index.hashing import VALIDATION, key_hashes


def is_validation_sample(keys: Sequence[str], share: float) -> npt.NDArray[np.bool_]:
    """bool (n,): which samples a share in [0, 1] of the corpus holds; a function of each key alone."""
    return key_hashes(keys, VALIDATION) < share * 2.0**64
