"""Matthews correlation and macro F1, from how often each class is the label, the prediction, and both."""

import math

import torch
from torch import Tensor


def matthews_correlation(predicted: Tensor, labels: Tensor) -> float:
    """Correlation of predictions and labels (Gorodkin, 2004; of two classes Matthews, 1975).

    As in scikit-learn's `matthews_corrcoef`, 0 where all predictions, or all labels, are of one class.

    Args:
        predicted, labels: int64 (n,), classes.

    Returns:
        In [-1, 1]: 1 where all are right, 0 for what a guess by the classes' shares gives.
    """
    of_labels, of_predictions, right = _counts(predicted, labels)
    n = float(len(labels))
    together = n * float(right.sum()) - float(of_labels @ of_predictions)
    spread = [n * n - float(counts @ counts) for counts in (of_labels, of_predictions)]
    return together / math.sqrt(spread[0] * spread[1]) if min(spread) > 0 else 0.0


def macro_f1(predicted: Tensor, labels: Tensor) -> float:
    """Mean over the classes of F1, the harmonic mean of precision and recall.

    Over the classes that are a label or a prediction; one that is never predicted rightly has an F1 of 0, as in
    scikit-learn's `f1_score(average="macro")`.

    Args:
        predicted, labels: int64 (n,), n at least 1, classes.

    Returns:
        In [0, 1].
    """
    of_labels, of_predictions, right = _counts(predicted, labels)
    either = of_labels + of_predictions
    return float((2 * right / either)[either > 0].mean())


def _counts(predicted: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Samples of each class by their labels, by their predictions, and by both: float64 (classes,)."""
    classes = int(torch.cat([predicted, labels]).max()) + 1
    each = (labels, predicted, labels[predicted == labels])
    counts = [torch.bincount(values, minlength=classes).double() for values in each]
    return counts[0], counts[1], counts[2]
