"""What a result was made from, compared with what is asked for now."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rhostream.errors import WorkspaceError

_NAMED: Final = 3  # differences in one message
_LONGEST: Final = 60  # characters of a value in it


def require_same(what: str, found: Mapping[str, Any], asked: Mapping[str, Any], remedy: str) -> None:
    """Refuse to go on with a result that was made from other settings than those asked for.

    Args:
        what: begins the message: "run 'x' was made".
        found, asked: JSON values; nested mappings are compared entry by entry, and named with dots. An entry that is
            missing is the same as None.
        remedy: ends the message: "give another --name, or replace it with --overwrite".

    Raises:
        WorkspaceError: they differ.
    """
    parts = [f"{name} {_brief(old)}, asked for {_brief(new)}" for name, old, new in _differences(found, asked)]
    if parts:
        more = [f"and {len(parts) - _NAMED} more"] if len(parts) > _NAMED else []
        raise WorkspaceError(f"{what} with other settings ({'; '.join(parts[:_NAMED] + more)}): {remedy}")


def _differences(
    found: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted(found.keys() | asked.keys()):
        old, new = found.get(name), asked.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name}", old, new


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
