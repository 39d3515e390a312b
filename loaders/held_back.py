"""Samples held back from training: a share of the corpus that a run measures its progress on."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from rhostream.loaders.key_hash import key_hashes

_SEED: Final = 1


def held_back(keys: Sequence[str], share: float) -> npt.NDArray[np.bool_]:
    """bool (n,): which samples a share in [0, 1] of the corpus holds; a function of each key alone."""
    return key_hashes(keys, _SEED) < share * 2.0**64
