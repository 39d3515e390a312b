"""Who follows a training run: TensorBoard, where it is installed, and Weights & Biases on request.

They are told at each evaluation what was measured, and shown what was selected. They draw no random number and change
nothing that training reads.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from PIL.Image import Image

from rhostream.errors import ConfigError
from rhostream.extras import install_command
from rhostream.pipeline.config import TrainConfig
from rhostream.pipeline.training.picture_grid import picture_grids
from rhostream.pipeline.training.properties import PASSED_OVER
from rhostream.pipeline.training.run import Run
from rhostream.schema import COST_UNITS, COSTS
from rhostream.selection.selected_batch import SelectedBatch


class Observer(Protocol):
    """Follows one run from the step at which it was made."""

    def evaluated(self, step: int, scalars: Mapping[str, float], pictures: Mapping[str, Image]) -> None:
        """What was measured at this step, and grids of images, by names such as "selected/correct"."""

    def close(self, failed: bool) -> None:
        """The run has ended, or this process's part of it."""


class Observers:
    """All observers that the settings ask for: made when there is a first thing to tell, closed at the block's end.

    Args:
        classes: name of every label.
        tell: False for all processes of a job but one.

    Raises:
        ConfigError: a package that was asked for is not installed.
    """

    def __init__(self, run: Run, config: TrainConfig, classes: Sequence[str], *, tell: bool = True) -> None:
        self._run, self._config, self._classes = run, config, classes
        self._tensorboard = _installed("tensorboard") if config.tensorboard is None else config.tensorboard
        self._observers: list[Observer] | None = None if tell else []
        if self._tensorboard:
            _require("tensorboard", "--tensorboard")
        if config.wandb:
            _require("wandb", f"--wandb {config.wandb}")

    def evaluated(self, batch: SelectedBatch) -> None:
        """Tell what the last line of the run's metrics says, and show the batch of that step."""
        line = self._run.metrics[-1]
        if self._observers is None:
            self._observers = self._begin(line["step"])
        if self._observers:
            told, pictures = scalars(line), picture_grids(batch, self._classes)
            for observer in self._observers:
                observer.evaluated(line["step"], told, pictures)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for observer in self._observers or ():
            observer.close(failed=kind is not None)

    def _begin(self, step: int) -> list[Observer]:
        # The packages are imported here: each takes seconds.
        observers: list[Observer] = []
        if self._tensorboard:
            from rhostream.pipeline.training.tensorboard_log import TensorBoardLog

            observers.append(TensorBoardLog(self._run, first_step=step))
        if self._config.wandb:
            from rhostream.pipeline.training.wandb_log import WandbLog

            observers.append(WandbLog(self._run, self._config.wandb))
        return observers


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """A line of `rhostream.schema.METRICS` under names that group: "loss/test", "seconds/score"; nulls are left out."""
    named = {
        "accuracy/test": line["test_accuracy"],
        "matthews_correlation/test": line.get("test_mcc"),
        "macro_f1/test": line.get("test_f1"),
        "mean_average_precision/test": line.get("test_map"),
        "zero_shot/test": line.get("test_zero_shot"),
        "loss/test": line["test_loss"],
        "loss/selected": line["train_loss"],
        "learning_rate": line["learning_rate"],
        "epoch": line["epoch"],
        **{
            f"{of}/{what}": line[f"{of}_{what}"]
            for of in ("selected", "candidates")
            for what in ("mislabeled", "correct")
        },
        **{f"passed_over/{reason}": line[reason] for reason in (*PASSED_OVER, "left_over")},
        **{f"{unit}/{cost}": line[f"{unit}_{cost}"] for unit in COST_UNITS for cost in COSTS},
    }
    return {name: float(value) for name, value in named.items() if value is not None}


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _require(package: str, asked: str) -> None:
    if not _installed(package):
        raise ConfigError(
            f"{asked}: the package {package} is not installed; run `{install_command(package)}`, or leave out the flag"
        )
