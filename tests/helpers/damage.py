"""Ways to damage a file: its bytes, or the types of what it holds."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from rhostream.loaders.storage.workspace import Workspace


def flip(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def _flips(content: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randrange(2, 20)):
        content = flip(content, chance)
    return content


def _truncated(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def _zeros(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    count = min(chance.choice((1, 16, 512)), len(content) - start)
    return content[:start] + bytes(count) + content[start + count :]


def _inserted(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + chance.randbytes(chance.randrange(1, 64)) + content[at:]


def _cut(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    return content[:start] + content[start + chance.randrange(1, 64) :]


def _repeated(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    piece = content[start : start + chance.randrange(1, 256)]
    return content[:start] + piece + content[start:]


BYTES: Final[dict[str, Callable[[bytes, random.Random], bytes]]] = {
    "one bit": flip,
    "some bits": _flips,
    "truncated": _truncated,
    "emptied": lambda _content, _chance: b"",
    "zeros": _zeros,
    "bytes put in": _inserted,
    "bytes cut out": _cut,
    "bytes repeated": _repeated,
    "noise": lambda content, chance: chance.randbytes(len(content)),
}


def types_changed(path: Path, chance: random.Random) -> bool:
    """A column or an entry of another type, or none at all, in a file that is sealed again."""
    place = Workspace(path.parent)
    if path.suffix == ".parquet":
        table = place.read_table(path.name)
        if not table.num_rows:
            return False
        at = chance.randrange(table.num_columns)
        name = table.column_names[at]
        changes: list[pa.Array] = [
            pa.array([[1]] * len(table)),
            pa.array([{"a": 1}] * len(table)),
            pa.array([b"\xff"] * len(table)),
        ]
        if not table.schema.field(at).nullable:
            changes.append(pa.nulls(len(table), table.schema.field(at).type))
        kind = chance.randrange(len(changes) + 1)
        changed = table.drop_columns([name]) if kind == len(changes) else table.set_column(at, name, changes[kind])
        place.write_table(path.name, changed.replace_schema_metadata(table.schema.metadata))
        return True
    if path.suffix == ".json":
        place.write_json(path.name, _entry_changed(place.read_json(path.name), chance))
        return True
    if path.suffix == ".jsonl":
        lines = place.read_lines(path.name)
        at = chance.randrange(len(lines))
        lines[at] = _entry_changed(lines[at], chance, absent=False)  # what a line does not tell was not measured
        place.write_lines(path.name, lines)
        return True
    return False


def _entry_changed(value: Any, chance: random.Random, *, absent: bool = True) -> Any:
    """One of its entries, at any depth, of another type or taken out."""
    changed = json.loads(json.dumps(value))
    inside = changed
    while True:
        key = chance.choice(list(inside)) if isinstance(inside, dict) else chance.randrange(len(inside))
        if isinstance(inside[key], (dict, list)) and inside[key] and chance.random() < 0.8:
            inside = inside[key]
            continue
        if absent and chance.random() < 0.2:
            del inside[key]
        else:
            inside[key] = chance.choice(
                [other for other in ("x", [1], {"x": 1}) if type(other) is not type(inside[key])]
            )
        return changed
