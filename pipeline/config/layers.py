"""Settings in layers: default < manifest < environment < flag, checked against a dataclass."""

import contextlib
import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from rhostream.errors import ConfigError

Settings = TypeVar("Settings")


def settings(kind: type[Settings], *layers: tuple[str, Mapping[str, Any]]) -> Settings:
    """Build the dataclass `kind` from layers of values, the later ones winning.

    Args:
        layers: pairs of where the values come from (for messages) and the values; a value of None is not set.

    Raises:
        ConfigError: an unknown name, a value of the wrong type, or one that `kind` itself refuses.
    """
    hints = typing.get_type_hints(kind)
    known = {field.name: hints[field.name] for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for where, layer in layers:
        values |= checked(known, where, layer)
    return kind(**values)


def from_text(kind: type[Any], where: str, values: Mapping[str, str]) -> dict[str, Any]:
    """Values of some fields of the dataclass `kind` that were written as text ("128", "1e-3", "true"), as their types.

    Raises:
        ConfigError: an unknown name, or a text that is no value of the field's type.
    """
    known = typing.get_type_hints(kind)
    checked(known, where, dict.fromkeys(values))  # unknown names first
    return checked(known, where, {name: _read(text, known[name]) for name, text in values.items()})


def checked(known: Mapping[str, Any], where: str, layer: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a layer that are set, as their types.

    Args:
        known: type of every setting there is.

    Raises:
        ConfigError: an unknown name, or a value of the wrong type.
    """
    values: dict[str, Any] = {}
    for name, value in layer.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known) or 'none'}"
            raise ConfigError(f"{where}: unknown setting {name!r}; {hint}")
        if value is not None:
            values[name] = _checked(value, known[name], f"{where}: {name}")
    return values


def _read(text: str, hint: Any) -> Any:
    """`text` as a value of the type `hint`; the text itself where it is none."""
    for option in _options(hint):
        if option is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if option in (int, float):
            with contextlib.suppress(ValueError):
                return option(text)
    return text


def _options(hint: Any) -> tuple[Any, ...]:
    """The types that a union allows; a type by itself."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _checked(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type `hint`, with the conversions that TOML and JSON need (list to tuple, int to float)."""
    options = _options(hint)
    for option in options:
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if origin is typing.Literal and value in arguments:
            return value
        if origin is tuple and isinstance(value, (list, tuple)):
            return tuple(_checked(item, arguments[0], where) for item in value)
        if origin in (dict, Mapping) and isinstance(value, Mapping):
            return dict(value)
        if option is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if option is Any or (isinstance(option, type) and type(value) is option):
            return value
    names = " or ".join(_name(option) for option in options if option is not type(None))
    raise ConfigError(f"{where} = {value!r} is not {names}")


def _name(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return words.get(hint, str(hint))
