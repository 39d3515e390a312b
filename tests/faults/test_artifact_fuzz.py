"""500 damaged artifacts: no traceback, no hang, and no other answer without a word."""

from pathlib import Path

import pytest
import torch
from helpers import artifact_fuzz
from helpers.readers import READ_BY
from helpers.small_workspace import SmallWorkspace

TRIALS = 500
#: Trials that failed in the sweep of benchmarks/faults.py, and have not since.
MENDED = (3342, 4580, 5839)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallWorkspace:
    monkeypatch.setenv("RHO_CACHE", str(tmp_path / "cache"))
    return SmallWorkspace(tmp_path)


def test_damaged_artifacts_are_told_in_one_line_or_change_nothing(place: SmallWorkspace) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trials = list(artifact_fuzz.run(place, [*range(TRIALS), *MENDED]))
    finally:
        torch.set_num_threads(threads)
    failed = [trial for trial in trials if trial.outcome in artifact_fuzz.FAILURES]
    assert not failed, "\n".join(map(str, failed))
    told = sum(trial.outcome == "told" for trial in trials)
    assert told > TRIALS // 2
    assert {trial.artifact for trial in trials} == set(READ_BY)
