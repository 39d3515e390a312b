"""A seeded fuzz of artifacts: damage one of a small workspace, run a command that reads it, compare the answer.

A trial ends "told" (one line says what is wrong, or a warning does), "same" (the answer is that of the whole
workspace, or the command has made the artifact again byte for byte), or it has failed: "changed" without a message,
"traceback", or "hang".
"""

import logging
import os
import random
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, Final, Literal

import click

from helpers.damage import BYTES, types_changed
from helpers.readers import READ_BY, READERS
from helpers.small_workspace import SmallWorkspace
from rhostream.errors import RhostreamError

Outcome = Literal["told", "same", "changed", "traceback", "hang"]
FAILURES: Final[tuple[Outcome, ...]] = ("changed", "traceback", "hang")
SECONDS: Final = 10  # of this process, after which a trial hangs
BY_THE_CLOCK: Final = 90  # or where it waits for what never comes, on a machine that does other things, too

#: Of these nothing else tells what they hold, so that a file that was written by somebody, whole, is another answer:
#: no types are changed in them, no entry is taken out, and they are not put in each other's place.
_USERS: Final = ("il.parquet", "clean.parquet", "weights.safetensors")


#: What another artifact lists: only of these a stream can tell that one has vanished.
_LISTED: Final = (
    "w/index/*",
    "w/shards/*",
    "w/thumbnails/*/index/*",
    "w/thumbnails/*/shards/*",
    "w/il/*/model.safetensors",
    "w/il/*/scores/*",
    "w/core_sets/*/rows/*",
    "indexed/index/*",
)
FILES: Final = ("folder", "pipe", "another of its kind", "another kind", "types", "vanished")
DAMAGES: Final = (*BYTES, *FILES)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What was done, and what came of it; `detail` is the message, or the last line of the traceback."""

    number: int
    artifact: str
    damage: str
    asked: str
    outcome: Outcome
    detail: str


class HangError(BaseException):
    """No `Exception`: nothing under test may catch it."""


@contextmanager
def limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise HangError

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, SECONDS), signal.SIGALRM: (signal.ITIMER_REAL, BY_THE_CLOCK)}
    before = {number: signal.signal(number, stop) for number in timers}
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _warnings() -> Iterator[list[str]]:
    told: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield told
    finally:
        logging.getLogger().removeHandler(handler)


class Fuzz:
    """Trials over one place, each a function of the seed and its number alone."""

    def __init__(self, place: SmallWorkspace, seed: int = 0) -> None:
        self._place, self._seed = place, seed
        self._artifacts = place.artifacts(READ_BY)
        self._kinds = sorted({self._pattern(name) for name in self._artifacts})
        self._answers: dict[str, Any] = {}

    def trial(self, number: int) -> Trial:
        """Damage one artifact and ask for one answer."""
        chance = random.Random(f"{self._seed} {number}")
        kind = chance.choice(self._kinds)
        name = chance.choice([name for name in self._artifacts if self._pattern(name) == kind])
        damage, asked = chance.choice(DAMAGES), chance.choice(READ_BY[kind])
        if damage == "vanished" and (kind not in _LISTED or asked.startswith(("rho query", "rho explain"))):
            damage = "one bit"  # what is not there was not made: the question has another answer
        expected = self._answer(asked)
        self._place.fresh()
        if not self._damage(name, damage, chance):
            damage = "one bit"  # this artifact cannot be damaged so
            self._damage(name, damage, chance)
        outcome, detail = self._asked(asked, expected)
        return Trial(number=number, artifact=kind, damage=damage, asked=asked, outcome=outcome, detail=detail)

    def _pattern(self, name: str) -> str:
        return next(pattern for pattern in READ_BY if fnmatch(name, pattern))

    def _answer(self, asked: str) -> Any:
        if asked not in self._answers:
            self._place.fresh()
            self._answers[asked] = READERS[asked](self._place)
        return self._answers[asked]

    def _asked(self, asked: str, expected: Any) -> tuple[Outcome, str]:
        with _warnings() as warned:
            try:
                with limited():
                    found = READERS[asked](self._place)
            except (RhostreamError, click.ClickException) as error:
                text = error.format_message() if isinstance(error, click.ClickException) else str(error)
                return ("told", text) if "\n" not in text.strip() else ("traceback", text)
            except HangError:
                return "hang", ""
            except BaseException as error:  # noqa: BLE001 - what a user would see as a traceback
                return "traceback", f"{type(error).__name__}: {error}"
        if _same(found, expected):
            return "same", ""
        return ("told", warned[0]) if warned else ("changed", "")

    def _damage(self, name: str, damage: str, chance: random.Random) -> bool:
        """False where this artifact cannot be damaged so."""
        path = self._place.folder / name
        content = path.read_bytes()
        if damage in BYTES:
            path.write_bytes(BYTES[damage](content, chance))
            return True
        if damage == "types":
            return name not in _USERS and types_changed(path, chance)
        if damage in ("another of its kind", "another kind"):
            own = self._pattern(name)
            others = [
                other
                for other in self._artifacts
                if other != name
                and (self._pattern(other) == own) == (damage == "another of its kind")
                # A ledger is a table of keys and il, too; a run's weights are weights to start from.
                and not (name in _USERS and other.endswith(path.suffix))
            ]
            if not others:
                return False
            path.write_bytes((self._place.folder / chance.choice(others)).read_bytes())
            return True
        path.unlink()
        if damage == "folder":
            path.mkdir()
        elif damage == "pipe":
            os.mkfifo(path)
        return True


def _same(found: Any, expected: Any) -> bool:
    return repr(found) == repr(expected)  # NaN is itself


def run(place: SmallWorkspace, numbers: Iterable[int], seed: int = 0) -> Iterator[Trial]:
    """The trials of these numbers, one after the other; the place is left as it was."""
    fuzz = Fuzz(place, seed)
    try:
        for number in numbers:
            yield fuzz.trial(number)
    finally:
        place.fresh()
