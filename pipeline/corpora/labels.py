"""From a label as a corpus writes it to an index into the classes, or the reason why there is none."""

import json
import math
import re
import reprlib
import unicodedata
from collections.abc import Iterable
from typing import Any, Final, Protocol

from rhostream.errors import ConfigError, CorpusError
from rhostream.pipeline.config import TaskName
from rhostream.pipeline.corpora.base import Label

#: The detail of a reject that has several labels where one is meant.
SEVERAL_LABELS: Final = 'a list of labels, which task = "multi_label" reads'

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")


def label_text(raw: Any) -> str | None:
    """A label's text without surrounding space, in Unicode NFC; None for an empty, null or NaN label."""
    if raw is None or (isinstance(raw, float) and math.isnan(raw)):
        return None
    return unicodedata.normalize("NFC", without_surrogates(str(raw))).strip() or None


def label_texts(raw: Any, task: TaskName, separator: str) -> list[str | None]:
    """The labels of one entry, each as `label_text` has it; none where a multi-label entry tells none.

    Raises:
        ConfigError: a list where one label was meant.
    """
    if task == "multi_label":
        found = label_list(raw, separator) or ()
        return [label_text(item) for item in found if not isinstance(item, (list, dict))]
    if isinstance(raw, list):
        raise ConfigError(f"{reprlib.repr(raw)} is {SEVERAL_LABELS}")
    return [label_text(raw)]


def label_list(raw: Any, separator: str) -> list[Any] | None:
    """The labels of one entry of a multi-label corpus; None where nothing is said, or no list.

    Args:
        raw: a list, the JSON text of one, or a text that `separator` splits; an empty text then has no label.
    """
    if isinstance(raw, list):
        return raw
    if separator and isinstance(raw, str) and not raw.strip():
        return []
    text = label_text(raw)
    if text is None:
        return None
    if text.startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list):
            return found
    return [part for part in text.split(separator) if part.strip()] if separator else None


def text_of_labels(raw: Any) -> str | None:
    """A text that `label_list` reads as it does `raw`, and UTF-8 can hold."""
    return json.dumps(raw) if isinstance(raw, list) else None if raw is None else without_surrogates(str(raw))


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
            f"{found_in}: no entry has a label that can be read, so there are no classes; name the label's place in "
            "[options] of the manifest, and for a multi-label corpus the separator of lists that are no JSON"
        )
    numbers = {_number(text) for text in distinct}
    if None in numbers:
        return tuple(sorted(distinct))
    return tuple(str(number) for number in sorted(number for number in numbers if number is not None))


class Parser(Protocol):
    """From what a corpus says of an entry to its label."""

    def parse(self, raw: Any) -> tuple[Label | None, str, str]:
        """The label, or None with the reason (of `rhostream.schema.REJECT_REASONS`) and the detail."""
        ...


def label_parser(classes: Iterable[str], task: TaskName, separator: str) -> Parser:
    """Of one label, or of lists."""
    return LabelListParser(classes, separator) if task == "multi_label" else LabelParser(classes)


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
        """See `Parser`."""
        if isinstance(raw, list):
            return None, "label_unknown", SEVERAL_LABELS
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


class LabelListParser:
    """Reads lists of labels, see `label_list`, each of them as `LabelParser` does. An entry may have none."""

    def __init__(self, classes: Iterable[str], separator: str) -> None:
        self._one, self._separator = LabelParser(classes), separator

    def parse(self, raw: Any) -> tuple[tuple[int, ...] | None, str, str]:
        """See `Parser`; one label that is none refuses the entry."""
        items = label_list(raw, self._separator)
        if items is None:
            text = label_text(raw)
            if text is None:
                return None, "label_missing", "there is no list of labels"
            hint = "" if self._separator else ", and [options] separator does not say what stands between its labels"
            return None, "label_unknown", f"{reprlib.repr(text)} is no JSON list{hint}"
        found = [self._one.parse(item) for item in items]
        refused = next(((reason, detail) for _, reason, detail in found if reason), None)
        if refused is not None:
            return None, *refused
        return tuple(sorted({label for label, _, _ in found if label is not None})), "", ""


def _number(text: str) -> int | None:
    return int(text.split(".")[0]) if _WHOLE_NUMBER.fullmatch(text) else None
