"""JSON values as the types that a dataclass declares: the one check of every card's shape."""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union

from rhostream.loaders.storage.unreadable import UnreadableError

T = TypeVar("T")


def shaped(value: Any, kind: type[T]) -> T:
    """An instance of the dataclass `kind` of a JSON object; entries that it does not declare are left out.

    Fields may be of a dataclass, `tuple[X, ...]`, `tuple[X, Y]`, `dict[str, X]`, `X | None`, `Literal`, a plain type
    or `Any`; of several dataclasses, `X | Y`, the first that declares all entries is taken.

    Raises:
        UnreadableError: an entry is missing or of another type; the cause names it.
    """
    converted: T = _shaped(value, kind, "")
    return converted


def _shaped(value: Any, kind: Any, where: str) -> Any:
    if type(value) is kind:  # most of them: plain values, by the ten thousand
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _instance(_required(value, Mapping, "an object", where), kind, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        rest = [argument for argument in arguments if argument is not type(None)]
        return None if value is None and len(rest) < len(arguments) else _shaped(value, _fitting(value, rest), where)
    if origin is Literal:
        if value not in arguments:
            raise UnreadableError(f"has {where} {value!r}, which is one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        items = _required(value, list, "a list", where)
        kinds = [arguments[0]] * len(items) if arguments[1:] == (...,) else arguments
        if len(items) != len(kinds):
            raise UnreadableError(f"has {where} of {len(items)} items, which are {len(kinds)}")
        return tuple(
            _shaped(item, each, f"{where}[{i}]") for i, (item, each) in enumerate(zip(items, kinds, strict=True))
        )
    if origin is dict:
        entries = _required(value, Mapping, "an object", where)
        return {name: _shaped(item, arguments[1], f"{where}.{name}") for name, item in entries.items()}
    if kind is float:
        return float(_required(value, (int, float), "a number", where))
    return _required(value, kind, f"of type {kind.__name__}", where)


def _fitting(value: Any, kinds: Sequence[Any]) -> Any:
    """The first kind that declares all entries of an object; of other values the first one."""
    if len(kinds) == 1 or not isinstance(value, Mapping):
        return kinds[0]
    return next((kind for kind in kinds if value.keys() <= {entry for entry, _, _ in _declared(kind)}), kinds[0])


def _instance(value: Mapping[str, Any], kind: Any, where: str) -> Any:
    given = {}
    for entry, declared, required in _declared(kind):
        if entry in value:
            found = value[entry]
            if type(found) is not declared:
                found = _shaped(found, declared, f"{where}.{entry}" if where else entry)
            given[entry] = found
        elif required:
            raise UnreadableError(f"has no {where}.{entry}" if where else f"has no {entry}")
    return kind(**given)


@functools.cache
def _declared(kind: Any) -> list[tuple[str, Any, bool]]:
    """Name and type of each field of a dataclass, and whether it has no default."""
    types_of, missing = typing.get_type_hints(kind), dataclasses.MISSING
    return [
        (field.name, types_of[field.name], field.default is missing and field.default_factory is missing)
        for field in dataclasses.fields(kind)
    ]


def _required(value: Any, kind: Any, called: str, where: str) -> Any:
    is_number = kind in (int, (int, float))
    if not isinstance(value, kind) or (is_number and isinstance(value, bool)):
        shown = repr(value)
        raise UnreadableError(f"has {where or 'content'} {shown[:60]}, which is {called}")
    return value
