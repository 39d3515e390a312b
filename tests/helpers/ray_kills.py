"""Stages on Ray whose actors and drivers are killed at random moments, until they are done."""

import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import ray

from helpers import forked, killable
from helpers.kills import COMMANDS, digests_of
from helpers.ray_driver import drive
from helpers.small_workspace import SmallWorkspace

#: Of `COMMANDS`, those that take an engine and differ in what they make.
STAGES: Final = (
    *("shards", "index", "thumbnails", "tokenize", "il score", "coreset", "export webdataset", "export fiftyone"),
)
WORKERS: Final = 2
ACTOR: Final = "actor"  # an end, beside the names of the signals to the driver
_LONGEST_WAIT: Final = 0.1  # seconds, after so many files were written


@dataclass(frozen=True, kw_only=True)
class RaySweep:
    """What came of ending the actors and drivers of a stage so often."""

    stage: str
    ended: dict[str, int]  # actors, and drivers by signal
    finished: int  # times that it was done first
    seconds: float


def sweep(place: SmallWorkspace, stage: str, ends: Sequence[str], seed: int = 0) -> RaySweep:
    """End the actors or the driver of a stage, in any order; all files must become those of this process, without Ray.

    The moments are drawn by how many files are there, as to start takes much longer than to work. A stage that is done
    first is compared, and begins anew. The cluster is one that this process has started.

    Args:
        ends: each `ACTOR` or the name of a signal to the driver.

    Raises:
        AssertionError: an end told of an error; the results differ.
    """
    begin, chance = time.monotonic(), random.Random(f"{stage} {seed}")
    place.fresh()
    *first, local = COMMANDS[stage](place)
    for each in first:
        place.cli(*each)
    before, said = place.folder.parent / "before", place.folder.parent / "said"
    shutil.rmtree(before, ignore_errors=True)
    shutil.copytree(place.folder, before)
    place.cli(*local)
    expected, at_last = digests_of(place.folder), _files(place.folder)

    def anew() -> None:
        shutil.rmtree(place.folder)
        shutil.copytree(before, place.folder)

    def compare() -> None:
        found = digests_of(place.folder)
        different = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        assert not different, f"{stage}: {different}"

    def is_caught(driver: Any) -> bool:
        """Is the driver still at work when so many of the files that are missing are there, and some while after?"""
        files = chance.randint(min(_files(place.folder), at_last), at_last)
        while driver.is_alive() and _files(place.folder) < files:
            time.sleep(0.01)
        driver.join(chance.uniform(0, _LONGEST_WAIT))
        return bool(driver.is_alive())

    anew()
    ended, finished = dict.fromkeys(ends, 0), 0
    waiting = chance.sample(list(ends), len(ends))
    while waiting:
        driver, is_killed = _start(_on_ray(local), said), False
        while waiting and not is_killed and is_caught(driver):
            if waiting[-1] == ACTOR:
                if not _end_an_actor(chance, driver):
                    continue
            elif killable.end(driver, signal.Signals[waiting[-1]]):
                is_killed = True
            else:
                break
            ended[waiting.pop()] += 1
        driver.join(120)
        told = said.read_text(errors="replace")
        assert "Traceback" not in told, f"{stage}: {told}"
        if not is_killed:
            assert driver.exitcode == 0, f"{stage}: {driver.exitcode} {told}"
            finished += 1
            compare()
            anew()
    last = _start(_on_ray(local), said)
    last.join(120)
    assert last.exitcode == 0, f"{stage}: {last.exitcode} {said.read_text(errors='replace')}"
    compare()
    seconds = round(time.monotonic() - begin, 1)
    return RaySweep(stage=stage, ended=ended, finished=finished, seconds=seconds)


def _files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def _on_ray(command: Sequence[str]) -> list[str]:
    """The same by actors."""
    at = command.index("--workers") if "--workers" in command else len(command)
    return [*command[:at], *command[at + 2 :], "--engine", "ray", "--workers", str(WORKERS)]


def _start(command: list[str], said: Path) -> Any:
    """A driver that joins the cluster."""
    joining = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    joining["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    return forked.begin(drive, (joining, command, said))


def _end_an_actor(chance: random.Random, driver: Any) -> bool:
    """Kill one of those that are there, or the first that comes; False where the driver has ended before."""
    while driver.is_alive():
        if actors := _actors():
            chance.choice(actors).kill()
            return True
        time.sleep(0.01)
    return False


def _actors() -> list[psutil.Process]:
    """Those of the cluster that this process has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.name().startswith("ray::_Actor"):
                found.append(process)
    return found
