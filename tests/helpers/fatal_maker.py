"""A maker whose worker dies, for tests of who makes its units then."""

import os
import signal
from dataclasses import dataclass

from rhostream.pipeline.jobs.maker import Advance, Maker


@dataclass(frozen=True)
class Number:
    """A unit of work."""

    number: int


@dataclass(frozen=True, kw_only=True)
class Fatal(Maker[Number, int]):
    """Unit 3 ends its process the first `deaths` times."""

    deaths: int

    @property
    def folder(self) -> str:
        return "shards"

    def __call__(self, unit: Number, advance: Advance) -> int:
        died = len(self.workspace.names("died"))
        advance(1)
        if unit.number == 3 and died < self.deaths:
            self.workspace.write_bytes(f"died/{died}", b"")
            os.kill(os.getpid(), signal.SIGKILL)
        advance(1)
        return unit.number * 2
