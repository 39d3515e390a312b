"""The settings of `rho coreset`."""

from dataclasses import dataclass
from typing import ClassVar

from rhostream.pipeline.config.choices import EngineName
from rhostream.pipeline.config.definition import StageConfig, setting
from rhostream.pipeline.config.shared import ENGINE, IL_NAME, WORKERS


@dataclass(frozen=True, kw_only=True)
class CoreSetConfig(StageConfig):
    """Which samples a core set keeps.

    Raises:
        ConfigError: a value that its setting does not allow.
    """

    STAGE: ClassVar[str] = "core set "

    name: str = setting(
        "svp",
        variable="RHO_CORESET_NAME",
        metavar="NAME",
        pattern=r"[A-Za-z0-9_-][A-Za-z0-9._-]*",
        form="use letters, digits, '.', '_' and '-', without a dot in front",
        help="Name of the core set.",
    )
    keep: float = setting(0.1, above=0, maximum=1, metavar="SHARE", help="Of the training split, what is kept.")
    il: str = setting("", **IL_NAME, unset="the only one", help="IL model that is the proxy.")
    engine: EngineName = setting("local", **ENGINE)
    workers: int = setting(0, **WORKERS)
