"""A process that gives a command to a Ray cluster that is there."""

import os
from pathlib import Path

from helpers import killable


def drive(environment: dict[str, str], command: list[str], said: Path) -> None:
    os.environ |= environment
    from rhostream.pipeline.jobs import on_ray  # only now: Ray reads its token as it is imported

    with on_ray._loopback_alone():  # else Ray would look for the cluster at the machine's address
        killable.rho(command, said)
