"""Hashes of keys: XXH3's, so that what they decide is the same everywhere, and independent by seed."""

import numpy as np

from rhostream.loaders.index.hashing import key_hash, key_hashes


def test_they_are_those_of_xxh3():
    assert key_hash("", 0) == 0x2D06800538D394C2  # the specification's own example
    keys = ["", "a", "ключ/1.jpg", "x" * 1000]
    hashes = key_hashes(iter(keys), 5)
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == [key_hash(key, 5) for key in keys]
    assert len(key_hashes([], 0)) == 0


def test_what_is_chosen_under_one_seed_says_nothing_of_another():
    keys = [f"{number:07d}" for number in range(100_000)]
    one, other = (key_hashes(keys, seed) < 2**64 // 10 for seed in (1, 2))
    for share, expected in ((one, 0.1), (other, 0.1), (one & other, 0.01)):
        deviation = (expected * (1 - expected) / len(keys)) ** 0.5
        assert abs(share.mean() - expected) < 5 * deviation
