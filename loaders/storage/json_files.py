"""JSON cards and JSON lines: the only module that reads them from files, and that knows how a damaged one fails.

What we write is sealed: the last entry of a card, and of each line, is the SHA-256 of the text in which that entry
is all zeros. Who edits a card by hand leaves the entry out. Cards of former releases have none.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from rhostream.loaders.storage.unreadable import UnreadableError

SEAL: Final = "sha256"
_UNSEALED: Final = "0" * 64
_SEAL: Final = re.compile(rb'"sha256": "([0-9a-f]{64})"\n?\}\n?\Z')
_CUT_SEAL: Final = re.compile(rb'[0-9a-f]{32}"\n?\}\n?\Z')  # what a cut leaves that joins another entry and the seal


def encode_card(value: Any) -> bytes:
    """A value as indented JSON; an object is sealed."""
    return _sealed(value, indent=1)


def decode_card(content: bytes) -> Any:
    """What a card holds, without its seal.

    Raises:
        UnreadableError: it is no JSON, or its seal is broken.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"is not valid JSON ({error})") from error
    if isinstance(value, dict) and SEAL in value:
        found = _SEAL.search(content)
        if found is None or _digest(content, *found.span(1)) != found[1].decode():
            raise UnreadableError(
                "was damaged or changed after it was written (its seal is broken)",
                remedy=f'restore it, or remove its entry "{SEAL}" if you have edited it yourself',
            )
        del value[SEAL]
    return value


def encode_lines(lines: Iterable[Mapping[str, Any]]) -> bytes:
    """JSON lines, each of them sealed."""
    return b"".join(_sealed(line, indent=None) for line in lines)


def decode_lines(content: bytes) -> list[dict[str, Any]]:
    """The objects of JSON lines, without their seals.

    Raises:
        UnreadableError: a line is no JSON object, or its seal is broken; the cause names its number.
    """
    found: list[dict[str, Any]] = []
    if not content.strip():
        raise UnreadableError("is empty")
    for number, line in enumerate(content.splitlines(), 1):
        try:
            value = decode_card(line)
        except UnreadableError as error:
            raise UnreadableError(f"has a line {number} that {error.cause}") from error
        if not isinstance(value, dict):
            raise UnreadableError(f"has a line {number} that is no JSON object")
        if _SEAL.search(line) is None and _CUT_SEAL.search(line):
            raise UnreadableError(f"has a line {number} that was damaged after it was written (its seal is cut)")
        found.append(value)
    return found


def _sealed(value: Any, indent: int | None) -> bytes:
    if not isinstance(value, Mapping):
        return (json.dumps(value, indent=indent, ensure_ascii=False) + "\n").encode()
    text = (json.dumps({**value, SEAL: _UNSEALED}, indent=indent, ensure_ascii=False) + "\n").encode()
    start = text.rindex(_UNSEALED.encode())
    end = start + len(_UNSEALED)
    # Without the line's end, by which lines are taken apart.
    return text[:start] + _digest(text.removesuffix(b"\n"), start, end).encode() + text[end:]


def _digest(content: bytes, start: int, end: int) -> str:
    """Of the text with zeros from `start` to `end`, without the end of its last line."""
    return hashlib.sha256(content[:start] + _UNSEALED.encode() + content[end:].removesuffix(b"\n")).hexdigest()
