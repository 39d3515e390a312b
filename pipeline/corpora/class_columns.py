"""One column for each class, which says whether a sample has it."""

import reprlib
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from rhostream.errors import ConfigError
from rhostream.pipeline.corpora.labels import label_text

_PRESENT: Final = frozenset({"1", "true"})


def matching_columns(patterns: Sequence[str], names: Sequence[str], own: Collection[str], table: str) -> list[str]:
    """The columns that these names and globs mean, in the order of the table; never one of `own`.

    Raises:
        ConfigError: one of them means none.
    """
    others = [name for name in names if name not in own]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in others):
            raise ConfigError(f"[options] class_columns: {table} has no column {pattern!r}, only {', '.join(names)}")
    return [name for name in others if any(fnmatchcase(name, pattern) for pattern in patterns)]


class ClassColumnsParser:
    """Reads rows with a column for each class: 1 or true where the sample has it.

    Args:
        columns: class number by column.
        absent: the values that say that it does not, as texts in lower case.
    """

    def __init__(self, columns: Mapping[str, int], absent: Sequence[str]) -> None:
        self._columns, self._absent = columns, frozenset(value.lower() for value in absent)

    def parse(self, row: Mapping[str, Any]) -> tuple[tuple[int, ...] | None, str, str]:
        """See `rhostream.pipeline.corpora.labels.Parser`."""
        found = []
        for column, label in self._columns.items():
            value = (label_text(row[column]) or "").lower()
            value = value.removesuffix(".0")
            if value in _PRESENT:
                found.append(label)
            elif value not in self._absent:
                reason = "label_unknown" if value else "label_missing"
                detail = f"column {column} is {reprlib.repr(value)}: 1 and true say that a sample has the class"
                return None, reason, f"{detail}, {' and '.join(sorted(self._absent))} that it has not"
        return tuple(sorted(found)), "", ""
