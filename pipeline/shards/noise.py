"""Label noise for experiments: moves a known share of the training labels to another class."""

import difflib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import pyarrow as pa

from rhostream.errors import ConfigError
from rhostream.pipeline.config import Noise
from rhostream.pipeline.corpora import CLEAN_LABEL, CLEAN_LABEL_TYPE, Entry

_TWO_TO_64: Final = 1 << 64


def with_noise(entries: Iterable[Entry], noise: Noise, classes: Sequence[str]) -> Iterator[Entry]:
    """Entries in the same order, some training labels moved to another class.

    An entry trains if it has a label and no official split but "train". Whether its label moves, and where to, is a
    hash of the seed and its source alone: entries that are added later change no other. Every training entry, moved or
    not, keeps its original label as the extra column `clean_label`, unless the corpus already knows a clean label.

    Raises:
        ConfigError: (at the call) there is no other class to move to, or a pair names an unknown class.
    """
    targets = _targets(noise, classes)
    return (_noisy(entry, noise, targets) for entry in entries)


def columns_with_noise(extra_columns: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """The extra columns of a corpus whose entries went through `with_noise`."""
    return {**extra_columns, CLEAN_LABEL: CLEAN_LABEL_TYPE}


def _noisy(entry: Entry, noise: Noise, targets: Sequence[Sequence[int]]) -> Entry:
    if not isinstance(entry.label, int) or entry.split not in (None, "train"):
        return entry
    move, choice = _two_numbers(noise.seed, entry.source)
    others = targets[entry.label]
    label = others[choice * len(others) // _TWO_TO_64] if others and move < noise.rate * _TWO_TO_64 else entry.label
    known = entry.extra.get(CLEAN_LABEL)
    extra = {**entry.extra, CLEAN_LABEL: entry.label if known is None else known}
    return replace(entry, label=label, extra=extra)


def _two_numbers(seed: int, source: str) -> tuple[int, int]:
    """Two independent uniform integers below 2^64."""
    digest = hashlib.sha256(f"noise {seed} {source}".encode()).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")


def _targets(noise: Noise, classes: Sequence[str]) -> list[list[int]]:
    """For each class, the classes its labels may move to."""
    count = len(classes)
    if noise.kind == "uniform":
        if count < 2:
            raise ConfigError(f"[noise] uniform: {count} class leaves no other to move a label to; leave [noise] out")
        return [[other for other in range(count) if other != label] for label in range(count)]
    if not noise.pairs:
        raise ConfigError('[noise] structured: there are no pairs; give pairs = [["from", "to"], ...] of class names')
    targets: list[list[int]] = [[] for _ in classes]
    for source, target in noise.pairs:
        start, end = _class_index(source, classes), _class_index(target, classes)
        if start == end:
            raise ConfigError(f"[noise] pairs: {source!r} moves to itself; name another class")
        targets[start].append(end)
    return targets


def _class_index(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        close = difflib.get_close_matches(name, classes, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(classes)}"
        raise ConfigError(f"[noise] pairs: {name!r} is no class of this corpus; {hint}")
    return classes.index(name)
