"""An error's remedy as the command to type."""

import logging
import shlex
from typing import Final

from rhostream.errors import Remedy, RhostreamError, Stage
from rhostream.pipeline.config import BUILT_IN_MODELS, PAIRS_MODEL, TEXT_MODELS

#: An IL model that is called like one of these is most likely of it, and `--model` names it so.
_MODELS: Final = {*BUILT_IN_MODELS, *TEXT_MODELS, PAIRS_MODEL}
_COMMANDS: Final = {
    Stage.SHARDS: "rho shards --manifest FILE",
    Stage.INDEX: "rho index TAR …",
    Stage.THUMBNAILS: "rho thumbnails",
    Stage.TOKENS: "rho tokenize",
    Stage.IL_TRAIN: "rho il train",
    Stage.IL_SCORE: "rho il score",
    Stage.CORE_SET: "rho coreset",
    Stage.CLUSTER: "rho cluster",
    Stage.TRAIN: "rho train",
    Stage.REPORT: "rho report",
    Stage.MISLABELED: "rho explain mislabeled",
}
#: Stages that need more than the error knows: the settings they had before.
_WITH_SETTINGS: Final = {
    Stage.SHARDS: " with the settings it was made with, it makes what is missing",
    Stage.INDEX: " with the settings it was made with, it makes what is missing",
}


def command(remedy: Remedy) -> str:
    """For instance `rho il score --workspace W --name strided_cnn`."""
    settings = {"workspace": remedy.workspace, **remedy.settings}
    if remedy.stage is Stage.IL_TRAIN and settings.get("name") in _MODELS:
        settings["model"] = settings.pop("name")
    flags = [
        f"--{name}" if value is True else f"--{name} {shlex.quote(str(value))}" for name, value in settings.items()
    ]
    return " ".join((_COMMANDS[remedy.stage], *flags))


def with_commands(error: RhostreamError) -> str:
    """The error's message, its remedies as commands."""
    commands = [f"`{command(remedy)}`{_WITH_SETTINGS.get(remedy.stage, '')}" for remedy in error.remedies]
    return error.with_remedies(f"run {', then '.join(commands)}") if commands else str(error)


class RemediesAsCommands(logging.Filter):
    """Errors that a warning tells of name commands, too."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                with_commands(value) if isinstance(value, RhostreamError) else value for value in record.args
            )
        return True
