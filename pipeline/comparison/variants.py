"""What `rho train --compare` compares: selection functions with settings of their own."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rhostream.errors import ConfigError
from rhostream.pipeline.config import TrainConfig, from_text
from rhostream.pipeline.training import require_selection

#: Settings that all variants of a comparison share, and why a variant has none of its own.
SHARED: Final = {
    "name": "runs are named for their variants",
    "select": "a variant begins with it",
    "il_runs": "all variants are charged for the IL model alike",
    "metric": "all variants are compared by it",
}
_BUDGETS: Final = ("steps", "epochs", "candidates")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A selection function and settings that differ from those of the comparison.

    Attributes:
        text: as it was written, "uniform:batch_size=128".
        settings: of `TrainConfig`, in its types.
    """

    text: str
    select: str
    settings: Mapping[str, Any]

    @property
    def file_name(self) -> str:
        """The text, safe as a file's name: "uniform-batch_size128"."""
        return re.sub(r"[^\w.-]+", "-", self.text.replace("=", ""), flags=re.ASCII)

    def config(self, base: TrainConfig, steps: int) -> TrainConfig:
        """The settings of its run.

        Args:
            base: of all variants.
            steps: the budget, unless the variant has one of its own.

        Raises:
            ConfigError: the settings do not go together.
        """
        own = dict(self.settings)
        if not any(name in own for name in _BUDGETS):
            own["steps"] = steps
        settings: dict[str, Any] = {"select": self.select, "epochs": 0.0, "candidates": 0} | own
        try:
            return base.with_selection(**settings)
        except ConfigError as error:
            raise ConfigError(f"variant {self.text!r}: {error}") from error


def parse_variant(text: str) -> Variant:
    """A variant as it is written: `function:setting=value:setting=value`.

    Raises:
        ConfigError: it is none, or a setting is unknown, of a wrong type or not for a variant.
    """
    select, *parts = (part.strip() for part in text.split(":"))
    where = f"variant {text!r}"
    given: dict[str, str] = {}
    for part in parts:
        name, is_setting, value = part.partition("=")
        if not is_setting or not name or not value:
            raise ConfigError(f"{where}: {part!r} is no setting; write function:setting=value:setting=value")
        if name in given:
            raise ConfigError(f"{where}: {name} is set twice")
        if name in SHARED:
            raise ConfigError(f"{where}: {name} cannot differ between variants, {SHARED[name]}")
        given[name] = value
    if not select:
        raise ConfigError(f"{where}: it begins with no selection function, such as uniform or rho_loss")
    require_selection(select)
    if len(units := [name for name in _BUDGETS if name in given]) > 1:
        raise ConfigError(f"{where}: give the budget in one of {', '.join(units)}")
    return Variant(text=text.strip(), select=select, settings=from_text(TrainConfig, where, given))
