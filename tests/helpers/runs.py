"""Training runs in tests: their ledger, their names, and runs that die."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rhostream.loaders.storage.workspace import Workspace
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
]


def named(settings: dict[str, Any]) -> str:
    return "-".join(f"{key}{value}" for key, value in settings.items())


def ledger(workspace: Workspace, run: str) -> list[dict[str, Any]]:
    folder = f"runs/{run}/ledger"
    return [row for name in workspace.names(folder) for row in workspace.read_table(f"{folder}/{name}").to_pylist()]


class Killed(BaseException):
    pass


@contextmanager
def dying_after(steps: int) -> Iterator[None]:
    """What trains within the block is killed when it has taken so many steps, and must be."""
    done, original = 0, train_module._forward_backward

    def dying(*arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done > steps:
            raise Killed
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "_forward_backward", dying)
        with pytest.raises(Killed):
            yield
