"""One definition for each setting: a field of a frozen dataclass whose metadata says what it is and may be.

The options of the command line, the checks of manifests, the names of environment variables and the tables of the docs
are all made from it. Nothing here may import more than the standard library: `rho train --help` waits for it.
"""

import contextlib
import dataclasses
import json
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from rhostream.errors import ConfigError

_KEY: Final = "setting"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is known of one setting.

    Attributes:
        name, hint, default: of the field; the default is None where there is none.
        help: what it sets, in a sentence; for options, tables and readers of the code.
        group: heading under which the help of a command lists it.
        metavar: stands for its value in the help.
        minimum, above, maximum, below: bounds of a number; `above` and `below` are not among the allowed values.
        pattern: regular expression that a text matches as a whole, and `form`: what it says, in words.
        unset: the default in words, where the value alone says too little.
        flag: the option's name, where it is not the field's with dashes; "" with `hidden` for none.
        hidden: no option of a command, for manifests and Python alone.
        variable: the environment variable, where it is not the kind's prefix and the option's name.
        commas: a list is given as one text, its items separated by commas.
        implied: value of an item of a mapping that is given as a name alone.
    """

    name: str = ""
    hint: Any = Any
    default: Any = None
    help: str = ""
    group: str = ""
    metavar: str = ""
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    pattern: str = ""
    form: str = ""
    unset: str = ""
    flag: str = ""
    hidden: bool = False
    variable: str = ""
    commas: bool = False
    implied: str = ""

    @property
    def types(self) -> tuple[Any, ...]:
        """The types that a value may have, None aside."""
        union = typing.get_origin(self.hint) in (typing.Union, types.UnionType)
        return tuple(t for t in (typing.get_args(self.hint) if union else (self.hint,)) if t is not types.NoneType)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a literal type."""
        return tuple(
            value for t in self.types if typing.get_origin(t) is typing.Literal for value in typing.get_args(t)
        )

    @property
    def is_switch(self) -> bool:
        return self.types == (bool,)

    @property
    def is_mapping(self) -> bool:
        return any(typing.get_origin(t) in (dict, Mapping) for t in self.types)

    @property
    def is_list(self) -> bool:
        return not self.is_mapping and any(typing.get_origin(t) is tuple for t in self.types)

    @property
    def default_text(self) -> str:
        """The default as people read it; empty where there is none to tell."""
        if self.unset or self.default in (None, "", ()):
            return self.unset
        if self.is_switch:
            return "on" if self.default else "off"
        if isinstance(self.default, tuple):
            return ", ".join(map(str, self.default))
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    @property
    def range_text(self) -> str:
        """The bounds in words: "a number above 0", "0 or more"; empty without any."""
        lower = f"above {self.above:g}" if self.above is not None else ""
        upper = f"below {self.below:g}" if self.below is not None else ""
        if self.minimum is not None:
            lower = (
                f"of at least {self.minimum:g}" if self.maximum is not None or upper else f"{self.minimum:g} or more"
            )
        if self.maximum is not None:
            upper = f"at most {self.maximum:g}"
        if self.minimum is not None and not upper:
            return lower
        return f"a number {' and '.join(part for part in (lower, upper) if part)}" if lower or upper else ""

    def checked(self, value: Any, where: str) -> Any:
        """`value` as the setting's type, with the conversions that TOML and JSON need (list to tuple, int to float).

        Args:
            where: begins the message, for instance "manifest.toml: [il] ".

        Raises:
            ConfigError: it has another type, or is not among the values that are allowed.
        """
        value = _typed(value, self.hint, f"{where}{self.name}")
        if self.pattern and isinstance(value, str) and not re.fullmatch(self.pattern, value):
            raise ConfigError(f"{where}{self.name} {value!r}: {self.form}")
        if isinstance(value, (int, float)) and not isinstance(value, bool) and not self._in_range(value):
            raise ConfigError(f"{where}{self.name} {value}: give {self.range_text}")
        return value

    def read(self, text: str) -> Any:
        """A value that was written as text ("128", "1e-3", "true", "a,b"); the text itself where it is none."""
        if self.is_list and self.commas:
            return tuple(part.strip() for part in text.split(","))
        for kind in self.types:
            if kind is bool and text.lower() in ("true", "false"):
                return text.lower() == "true"
            if kind in (int, float):
                with contextlib.suppress(ValueError):
                    return kind(text)
        return text

    def read_item(self, text: str) -> tuple[str, Any]:
        """An item of a mapping that was written as NAME=VALUE.

        Raises:
            ConfigError: it has no value.
        """
        name, equals, value = text.rpartition("=")
        if not equals:
            if not self.implied:
                raise ConfigError(f"{text!r}: give {self.metavar}")
            return text, self.implied
        if any(typing.get_args(kind)[1:] == (Any,) for kind in self.types):
            with contextlib.suppress(ValueError):
                return name, json.loads(value)
        return name, value

    def _in_range(self, value: float) -> bool:
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.maximum is None or value <= self.maximum)
            and (self.below is None or value < self.below)
        )


def setting(default: Any, **about: Any) -> Any:
    """A dataclass field with this default; `about` are further attributes of `Setting`.

    A dict is copied for each object.
    """
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=described(**about))
    return dataclasses.field(default=default, metadata=described(**about))


def described(**about: Any) -> dict[str, Setting]:
    """The metadata of a field without a default, of attributes of `Setting`."""
    return {_KEY: Setting(**about)}


class StageConfig:
    """Base of the settings of a stage: every value is checked for type and bounds when one is made.

    Attributes:
        STAGE: begins the message about a wrong value: "IL ".
        VARIABLES: prefix of the environment variables.

    Raises:
        ConfigError: a value that its setting does not allow.
    """

    STAGE: ClassVar[str] = ""
    VARIABLES: ClassVar[str] = "RHO_"

    def __post_init__(self) -> None:
        for each in definitions(type(self)).values():
            if (value := getattr(self, each.name)) is not None:
                object.__setattr__(self, each.name, each.checked(value, self.STAGE))


def definitions(kind: type[Any]) -> dict[str, Setting]:
    """The settings of a dataclass by name; fields that say nothing of themselves are known by name and type."""
    hints, prefix = typing.get_type_hints(kind), getattr(kind, "VARIABLES", "RHO_")
    found = {}
    for field in dataclasses.fields(kind):
        about: Setting = field.metadata.get(_KEY, Setting(hidden=True))
        flag = about.flag or "--" + field.name.replace("_", "-")
        variable = about.variable or prefix + flag.removeprefix("--").replace("-", "_").upper()
        found[field.name] = dataclasses.replace(
            about,
            name=field.name,
            hint=hints[field.name],
            default=None if field.default is dataclasses.MISSING else field.default,
            flag=flag,
            variable="" if about.hidden else variable,
        )
    return found


def _typed(value: Any, hint: Any, where: str) -> Any:
    options = Setting(hint=hint).types
    for option in options:
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if origin is typing.Literal and value in arguments:
            return value
        if origin is tuple and isinstance(value, (list, tuple)):
            return tuple(_typed(item, arguments[0], where) for item in value)
        if origin in (dict, Mapping) and isinstance(value, Mapping):
            return dict(value)
        if option is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if option is Any or (isinstance(option, type) and type(value) is option):
            return value
    raise ConfigError(f"{where} = {value!r} is not {' or '.join(_words(option) for option in options)}")


def _words(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return words.get(hint, str(hint))
