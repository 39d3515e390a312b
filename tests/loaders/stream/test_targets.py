"""Targets: how labels of the index become tensors, and back."""

import numpy as np
import pyarrow as pa
import torch

from rhostream.loaders.index.labels import concat_labels, take_labels
from rhostream.loaders.stream.targets import labels_of, make_targets


def test_lists_become_rows_of_zeros_and_ones():
    lists = pa.array([[0, 2], [], [1], [0, 1, 2]], pa.list_(pa.int32()))
    expected = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]], dtype=torch.float32)
    assert torch.equal(make_targets(lists, 3), expected)
    assert torch.equal(make_targets(lists[1:3], 3), expected[1:3])
    assert labels_of(expected).tolist() == lists.tolist()
    assert make_targets(lists[:0], 3).shape == (0, 3)


def test_lists_are_taken_and_concatenated_as_numbers_are():
    lists = pa.array([[0], [], [1, 2]], pa.list_(pa.int32()))
    numbers = np.array([5, 6, 7], np.int32)
    positions = np.array([2, 0], np.int64)
    assert take_labels(lists, positions).tolist() == [[1, 2], [0]]
    assert take_labels(numbers, positions).tolist() == [7, 5]
    assert concat_labels([take_labels(lists, slice(0, 1)), lists]).tolist() == [[0], [0], [], [1, 2]]
    assert make_targets(concat_labels([numbers, numbers]), 9).tolist() == [5, 6, 7, 5, 6, 7]
    assert labels_of(make_targets(numbers, 9)).tolist() == [5, 6, 7]
