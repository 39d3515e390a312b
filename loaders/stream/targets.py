"""What a model is to predict, as a tensor: the one place where a target is made of a label."""

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from rhostream.loaders.index import LABEL_LISTS, Labels


def make_targets(labels: Labels, classes: int) -> Tensor:
    """int64 (n,), the class of each sample; of a multi-label corpus float32 (n, classes), 1 for each of its classes."""
    if isinstance(labels, np.ndarray):
        return torch.from_numpy(labels.astype(np.int64))
    multi_hot = torch.zeros(len(labels), classes)
    rows = np.repeat(np.arange(len(labels)), np.asarray(labels.value_lengths()))
    multi_hot[torch.from_numpy(rows), torch.from_numpy(np.array(labels.flatten(), np.int64))] = 1
    return multi_hot


def labels_of(targets: Tensor) -> Labels:
    """The labels that `make_targets` made these of, on the CPU."""
    if targets.dim() == 1:
        found: Labels = targets.numpy().astype(np.int32)
        return found
    return pa.array([row.nonzero()[:, 0].tolist() for row in targets], LABEL_LISTS)
