"""Settings in layers: default < manifest < environment < flag, checked against the definitions of a dataclass."""

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from rhostream.errors import ConfigError
from rhostream.pipeline.config.definition import definitions

Settings = TypeVar("Settings")


def settings(kind: type[Settings], *layers: tuple[str, Mapping[str, Any]]) -> Settings:
    """Build the dataclass `kind` from layers of values, the later ones winning.

    Args:
        layers: pairs of where the values come from (for messages) and the values; a value of None is not set.

    Raises:
        ConfigError: an unknown name, a value that its setting does not allow, or values that do not go together.
    """
    values: dict[str, Any] = {}
    for where, layer in layers:
        values |= checked(kind, where, layer)
    return kind(**values)


def from_text(kind: type[Any], where: str, values: Mapping[str, str]) -> dict[str, Any]:
    """Values of some settings of `kind` that were written as text ("128", "1e-3", "true"), as their types.

    Raises:
        ConfigError: an unknown name, or a text that is no value of the setting.
    """
    checked(kind, where, dict.fromkeys(values))  # unknown names first
    known = definitions(kind)
    return checked(kind, where, {name: known[name].read(text) for name, text in values.items()})


def checked(kind: type[Any], where: str, layer: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a layer that are set, as the types of the settings of `kind`.

    Raises:
        ConfigError: an unknown name, or a value that its setting does not allow.
    """
    known, values = definitions(kind), {}
    for name, value in layer.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known) or 'none'}"
            raise ConfigError(f"{where}: unknown setting {name!r}; {hint}")
        if value is not None:
            values[name] = known[name].checked(value, f"{where}: ")
    return values
