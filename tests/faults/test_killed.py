"""Every command, ended by a signal at random moments and started again, ends as if it had never been ended."""

import pytest
from helpers.killable import ENDS, KILLS
from helpers.kills import COMMANDS, IMAGES, sweep
from helpers.small_workspace import SmallWorkspace


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> SmallWorkspace:
    return SmallWorkspace(tmp_path_factory.mktemp("killed"), images=IMAGES, shard_size=20)


@pytest.mark.parametrize("asked", COMMANDS)
def test_commands_ended_by_signals_end_as_if_never_ended(asked: str, place: SmallWorkspace) -> None:
    times = 1 if "workers" in asked or "of pairs" in asked else KILLS  # interpreters take their time to start
    found = sweep(place, asked, (list(ENDS) * times)[:times])
    assert sum(found.ended.values()) == times
