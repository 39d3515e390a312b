"""From a label as a corpus writes it to an index into the classes, or the reason why there is none."""

import math
import re
import reprlib
import unicodedata
from collections.abc import Iterable
from typing import Any

from rhostream.errors import CorpusError

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")


def label_text(raw: Any) -> str | None:
    """A label's text without surrounding space, in Unicode NFC; None for an empty, null or NaN label."""
    if raw is None or (isinstance(raw, float) and math.isnan(raw)):
        return None
    return unicodedata.normalize("NFC", without_surrogates(str(raw))).strip() or None


def without_surrogates(text: str) -> str:
    """The text with a backslash escape for each lone surrogate, which JSON may hold and UTF-8 cannot."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def derive_classes(texts: Iterable[str | None], found_in: str) -> tuple[str, ...]:
    """The distinct labels as classes: in numeric order if all are whole numbers ("3" and "3.0" are one), else sorted.

    Args:
        texts: what `label_text` gave.
        found_in: where they are from, for the message.

    Raises:
        CorpusError: there is no label at all.
    """
    distinct = {text for text in texts if text is not None}
    if not distinct:
        raise CorpusError(
            f"{found_in}: no entry has a label, so there are no classes; name the label's place in "
            "[options] of the manifest"
        )
    numbers = {_number(text) for text in distinct}
    if None in numbers:
        return tuple(sorted(distinct))
    return tuple(str(number) for number in sorted(number for number in numbers if number is not None))


class LabelParser:
    """Reads labels given as class names or as class numbers.

    A whole number is a class number, from 0, unless a class is named by another number than its own ("3", "5", "7"):
    then it can only be a name.
    """

    def __init__(self, classes: Iterable[str]) -> None:
        names = tuple(classes)
        self._index = {label_text(name): index for index, name in enumerate(names)}
        self._count = len(names)
        self._numbered = all(_number(name) in (None, index) for index, name in enumerate(names))

    def parse(self, raw: Any) -> tuple[int | None, str, str]:
        """The label's index, or None with the reason (of `rhostream.schema.REJECT_REASONS`) and the detail."""
        text = label_text(raw)
        if text is None:
            return None, "label_missing", "the label is empty"
        if text in self._index:
            return self._index[text], "", ""
        number = _number(text)
        if number is not None and str(number) in self._index:
            return self._index[str(number)], "", ""
        if number is None or not self._numbered:
            return None, "label_unknown", f"{reprlib.repr(text)} is not among the {self._count} classes"
        if 0 <= number < self._count:
            return number, "", ""
        return None, "label_out_of_range", f"{number} is not in 0 to {self._count - 1}"


def _number(text: str) -> int | None:
    return int(text.split(".")[0]) if _WHOLE_NUMBER.fullmatch(text) else None
