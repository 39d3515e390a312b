"""Matthews correlation and macro F1, against scikit-learn's."""

import numpy as np
import pytest
import torch

from rhostream.pipeline.models.class_counts import macro_f1, matthews_correlation


@pytest.mark.slow  # its import
@pytest.mark.parametrize("classes", [2, 3, 40])
def test_both_are_scikit_learns_for_many_predictions(classes):
    from sklearn.metrics import f1_score, matthews_corrcoef

    for seed in range(30):
        random = np.random.default_rng((classes, seed))
        labels = random.integers(0, classes, 50)
        predicted = np.where(random.random(50) < seed / 30, labels, random.integers(0, classes, 50))
        predicted, labels = torch.tensor(predicted), torch.tensor(labels)
        assert matthews_correlation(predicted, labels) == pytest.approx(matthews_corrcoef(labels, predicted), abs=1e-12)
        assert macro_f1(predicted, labels) == pytest.approx(f1_score(labels, predicted, average="macro"), abs=1e-12)


@pytest.mark.parametrize(
    ("predicted", "labels", "correlation", "f1"),
    [
        ([0, 1, 1, 0], [0, 1, 1, 0], 1.0, 1.0),
        ([1, 0, 0, 1], [0, 1, 1, 0], -1.0, 0.0),
        ([1, 1, 1, 1], [0, 1, 1, 1], 0.0, 3 / 7),  # all of one class: 6/7 of one class, 0 of the other
        ([2, 2], [2, 2], 0.0, 1.0),  # labels of one class correlate with nothing
    ],
)
def test_extremes_have_their_values(predicted, labels, correlation, f1):
    predicted, labels = torch.tensor(predicted), torch.tensor(labels)
    assert matthews_correlation(predicted, labels) == correlation
    assert macro_f1(predicted, labels) == pytest.approx(f1)
