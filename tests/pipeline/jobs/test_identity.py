"""What a result was made from is compared entry by entry, and what differs is named in one line."""

import pytest

from rhostream import WorkspaceError
from rhostream.pipeline.jobs.identity import require_same


def test_what_differs_is_named_with_both_values_and_the_remedy() -> None:
    found = {"spec": {"size": 32, "mean": [0.5]}, "model": "mlp", "weights": None}
    asked = {"spec": {"size": 64, "mean": [0.5]}, "model": "mlp", "noise": {"rate": 0.1}}
    with pytest.raises(WorkspaceError) as caught:
        require_same("run 'x' was made", found, asked, "use --overwrite")
    assert str(caught.value) == (
        "run 'x' was made with other settings (noise None, asked for {'rate': 0.1}; spec.size 32, asked for 64): use "
        "--overwrite"
    )
    require_same("run 'x' was made", found, {name: value for name, value in found.items() if value}, "")


def test_many_and_long_differences_stay_one_short_line() -> None:
    with pytest.raises(WorkspaceError, match=r"c None, asked for '0+\.\.\.; and 5 more\): remedy$") as caught:
        require_same("it was made", {}, dict.fromkeys("abcdefgh", "0" * 1000), "remedy")
    assert len(str(caught.value)) < 400
