"""Training runs in tests: their ledger, their names, and runs that die."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.jobs.interruption import Interrupted
from rhostream.pipeline.training import loop as train_module

#: Ways of choosing that carry something from step to step, as settings of `TrainConfig`.
THAT_REMEMBER: list[dict[str, Any]] = [
    {"share": 0.5, "class_floor": 0.5},
    {"score_floor": 0.0, "score_age": 12},
    {"rule": "gumbel", "temperature": 0.5},
    {"select": "uniform", "prefilter": 1.0},
    {"select": "grad_norm_is"},
    {"select": "selective_backprop"},
    {"proxy": True},
    {"live_il": True},
    {"score_ahead": True},
]


def named(settings: dict[str, Any]) -> str:
    return "-".join(f"{key}{value}" for key, value in settings.items())


def ledger(workspace: Workspace, run: str) -> list[dict[str, Any]]:
    folder = f"runs/{run}/ledger"
    return [row for name in workspace.names(folder) for row in workspace.read_table(f"{folder}/{name}").to_pylist()]


class Killed(BaseException):
    pass


def _killed() -> None:
    raise Killed


@contextmanager
def _met_by(event: Callable[[], None], step: int) -> Iterator[None]:
    """Within the block the event meets a training in its so-manieth step."""
    done, original = 0, train_module.forward_backward

    def met(*arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done == step:
            event()
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "forward_backward", met)
        yield


@contextmanager
def dying_after(steps: int) -> Iterator[None]:
    """What trains within the block is killed when it has taken so many steps, and must be."""
    with _met_by(_killed, steps + 1), pytest.raises(Killed):
        yield


@contextmanager
def signaled_at(step: int, *signals: signal.Signals, saying: str) -> Iterator[None]:
    """What trains within the block gets these signals in its so-manieth step, and must end with these words."""

    def event() -> None:
        for number in signals:
            os.kill(os.getpid(), number)

    with _met_by(event, step), pytest.raises(Interrupted, match=saying) as ended:
        yield
    assert ended.value.number == signals[-1]
