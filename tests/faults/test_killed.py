"""Every command, ended by a signal at random moments and started again, ends as if it had never been ended."""

import os

import pytest
from helpers.killable import ENDS, KILLS
from helpers.kills import COMMANDS, IMAGES, sweep
from helpers.small_workspace import SmallWorkspace


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> SmallWorkspace:
    return SmallWorkspace(tmp_path_factory.mktemp("killed"), images=IMAGES, shard_size=20)


@pytest.mark.parametrize("asked", COMMANDS)
def test_commands_ended_by_signals_end_as_if_never_ended(asked: str, place: SmallWorkspace) -> None:
    """Each by one of the signals, in turn; by `RHO_TEST_KILLS` where it is set. `benchmarks/kills.py` does the rest."""
    times = KILLS if "RHO_TEST_KILLS" in os.environ else 1
    first = list(COMMANDS).index(asked)
    found = sweep(place, asked, [list(ENDS)[(first + number) % len(ENDS)] for number in range(times)])
    assert sum(found.ended.values()) == times
