"""Mean average precision: how well the scores of each class put the samples that have it before those that have not."""

import torch
from torch import Tensor


def mean_average_precision(scores: Tensor, present: Tensor) -> float:
    """Mean over the classes of the average precision, sum over the thresholds of (R_k - R_{k-1}) P_k.

    Precision P_k and recall R_k are those of all samples with at least the k-th highest score: samples of equal score
    count together, and nothing is interpolated, as in scikit-learn's `average_precision_score(average="macro")`.
    Classes that no sample has are left out.

    Args:
        scores: float (n, C), logits or probabilities.
        present: bool (n, C).

    Returns:
        In [0, 1]; nan where no sample has any class, or a score is not a number.
    """
    values = [
        _average_precision(scores[:, label].double(), present[:, label])
        for label in range(present.shape[1])
        if bool(present[:, label].any())
    ]
    return sum(values) / len(values) if values else float("nan")


def _average_precision(scores: Tensor, present: Tensor) -> float:
    if bool(scores.isnan().any()):
        return float("nan")
    ordered, order = scores.sort(descending=True)
    found = present[order].double().cumsum(0)
    # The last of each run of equal scores: a threshold between them would tell apart what the model does not.
    last = torch.cat([ordered[1:] != ordered[:-1], ordered.new_ones(1, dtype=torch.bool)])
    found, taken = found[last], (last.nonzero()[:, 0] + 1).double()
    gained = torch.diff(found, prepend=found.new_zeros(1))
    return float((gained * found / taken).sum() / found[-1])
