"""The prefilter: what it takes, and how it reads one threshold or one of each class."""

import numpy as np
import pytest

from rhostream import ConfigError
from rhostream.loaders.reference.joined_rows import JoinedRows
from rhostream.loaders.reference.prefilter import Prefilter

JOINED = JoinedRows(il=np.float32([0.5, 1.5, 0.5, 1.5]), predicted=np.int32([1, 1, 0, 0]))
LABELS = np.int32([0, 0, 1, 1])  # all contradicted


@pytest.mark.parametrize("chance", [0.0, -1.0, float("nan"), float("inf"), (), (1.0, 0.0), (1.0, float("nan"))])
def test_a_threshold_that_rules_out_nothing_sensible_is_refused(chance: float | tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="give a number above 0"):
        Prefilter(chance=chance)


def test_thresholds_of_another_number_of_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 numbers for 2 classes; give one of each"):
        Prefilter(chance=(1.0, 1.0, 1.0)).rules_out(JOINED, LABELS, 2)


def test_each_class_has_its_own_threshold() -> None:
    assert Prefilter(chance=1.0).rules_out(JOINED, LABELS, 2).tolist() == [False, True, False, True]
    assert Prefilter(chance=(2.0, 0.1)).rules_out(JOINED, LABELS, 2).tolist() == [True, True, False, False]
