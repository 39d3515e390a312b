"""Mean average precision, against its definition and against scikit-learn's."""

import math

import numpy as np
import pytest
import torch

from rhostream.pipeline.models.average_precision import mean_average_precision


def by_definition(scores: list[float], present: list[bool]) -> float:
    """Sum over the thresholds of the gain in recall times the precision."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [here for score, here in zip(scores, present, strict=True) if score >= threshold]
        total += (sum(taken) / sum(present) - recall) * sum(taken) / len(taken)
        recall = sum(taken) / sum(present)
    return total


@pytest.fixture(params=[3, 1000])
def ranked(request):
    """Scores and whether the class is present, (60, 5) each; the last class never occurs."""
    random = np.random.default_rng(request.param)
    scores = random.integers(0, request.param, (60, 5)) / request.param  # few levels: many ties
    present = random.random((60, 5)) < [0.05, 0.2, 0.5, 0.9, 0.0]
    present[0, 0], present[:, 4] = True, False
    return scores, present


def test_it_is_the_mean_over_classes_as_defined(ranked):
    scores, present = ranked
    found = mean_average_precision(torch.tensor(scores), torch.tensor(present))
    each = [by_definition(scores[:, c].tolist(), present[:, c].tolist()) for c in range(4)]
    assert found == pytest.approx(sum(each) / 4, abs=1e-12)


@pytest.mark.slow  # its import
def test_scikit_learn_finds_the_same(ranked):
    from sklearn.metrics import average_precision_score

    scores, present = ranked
    found = mean_average_precision(torch.tensor(scores), torch.tensor(present))
    assert found == pytest.approx(average_precision_score(present[:, :4], scores[:, :4]), abs=1e-12)


def test_perfect_worst_and_unknown_rankings_have_their_values():
    present = torch.tensor([[True], [False], [False], [False]])
    assert mean_average_precision(torch.tensor([[4.0], [3.0], [2.0], [1.0]]), present) == 1.0
    assert mean_average_precision(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), present) == 0.25
    assert mean_average_precision(torch.zeros(4, 1), present) == 0.25  # all equal: the share that has the class
    assert math.isnan(mean_average_precision(torch.zeros(4, 1), torch.zeros(4, 1, dtype=torch.bool)))
    assert math.isnan(mean_average_precision(torch.tensor([[math.nan], [1.0], [2.0], [3.0]]), present))
