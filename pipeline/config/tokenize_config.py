"""The settings of `rho tokenize`."""

from dataclasses import dataclass
from typing import ClassVar

from rhostream.pipeline.config.choices import EngineName
from rhostream.pipeline.config.definition import StageConfig, setting
from rhostream.pipeline.config.shared import ENGINE, SPLITS, TEXT_LENGTH, TOKENIZER, WORKERS


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig(StageConfig):
    """Which tokens to store, of which shards.

    Raises:
        ConfigError: a value that its setting does not allow.
    """

    STAGE: ClassVar[str] = "tokens "
    VARIABLES: ClassVar[str] = "RHO_TOKENIZE_"

    tokenizer: str = setting("", **TOKENIZER)
    text_length: int = setting(0, **TEXT_LENGTH)
    splits: tuple[str, ...] = setting(("train",), **SPLITS)
    engine: EngineName = setting("local", **ENGINE)
    workers: int | None = setting(None, **WORKERS, unset="one per core")
    overwrite: bool = setting(False, hidden=True, help="Make again what is already made.")
