"""The settings of `rho thumbnails`."""

from dataclasses import dataclass
from typing import ClassVar

from rhostream.pipeline.config.choices import EngineName, ThumbnailFormat
from rhostream.pipeline.config.definition import StageConfig, setting
from rhostream.pipeline.config.shared import ENGINE, SPLITS, WORKERS


@dataclass(frozen=True, kw_only=True)
class ThumbnailsConfig(StageConfig):
    """Which thumbnails to make, of which shards.

    Raises:
        ConfigError: a value that its setting does not allow.
    """

    STAGE: ClassVar[str] = "thumbnails "
    VARIABLES: ClassVar[str] = "RHO_THUMBNAILS_"

    size: int = setting(
        64,
        minimum=1,
        metavar="PIXELS",
        unset="the manifest's thumbnails, else 64",
        help="Shorter side of the thumbnails; smaller images are not enlarged.",
    )
    format: ThumbnailFormat = setting(
        "jpeg",
        unset="the manifest's, else jpeg",
        help="raw is exact and needs no decoding, in 5 to 8 times the space, less where gray.",
    )
    splits: tuple[str, ...] = setting(("train",), **SPLITS)
    engine: EngineName = setting("local", **ENGINE)
    workers: int | None = setting(None, **WORKERS, unset="one per core")
    overwrite: bool = setting(False, hidden=True, help="Make again what is already made.")
