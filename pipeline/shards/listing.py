"""The seeded listing of a corpus: every entry with its key, in one order, cut into slices (units of work)."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from rhostream.errors import CorpusError
from rhostream.loaders.index import key_of
from rhostream.pipeline.corpora import Entry

_PRECEDENCE: Final[dict[str | None, int]] = {"test": 0, "val": 1}


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All entries of a corpus in seeded order; `keys[i]` is of `entries[i]`, unique among those not refused."""

    entries: list[Entry]
    keys: list[str]
    unit_size: int

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def units(self) -> int:
        return -(-len(self.entries) // self.unit_size)

    def slice(self, number: int) -> slice:
        """Of the unit `number`."""
        return slice(number * self.unit_size, (number + 1) * self.unit_size)

    def refused(self) -> Counter[str]:
        """How many entries the listing alone refuses, by reason."""
        return Counter(entry.reason for entry in self.entries if entry.reason)


def list_entries(entries: Iterable[Entry], *, classes: int, seed: int, unit_size: int) -> Listing:
    """List a corpus: refuse bad labels and all but one entry of a key, and shuffle by a hash of seed and key.

    Of the entries of one key the first stays, in the order test, val, train, then by source and label.

    Raises:
        CorpusError: there is no entry.
    """
    by_key: dict[str, Entry | list[Entry]] = {}
    for found in entries:
        entry = _checked_label(found, classes)
        key = key_of(entry.source, entry.key)
        others = by_key.get(key)
        if others is None:
            by_key[key] = entry
        elif isinstance(others, list):
            others.append(entry)
        else:
            by_key[key] = [others, entry]
    if not by_key:
        raise CorpusError("the corpus lists no entries: check its root and the options of its format")
    salt = str(seed).encode()
    order = sorted(by_key, key=lambda key: (hashlib.blake2b(key.encode(), digest_size=8, key=salt[:64]).digest(), key))
    listing = Listing(entries=[], keys=[], unit_size=unit_size)
    for key in order:
        for entry in _one_of_a_key(key, by_key.pop(key)):
            listing.entries.append(entry)
            listing.keys.append(key)
    return listing


def _checked_label(entry: Entry, classes: int) -> Entry:
    if entry.reason:
        return entry
    if entry.label is None:
        return replace(entry, reason="label_missing", detail="the corpus gives no label")
    labels = all_labels(entry)
    if labels and not (min(labels) >= 0 and max(labels) < classes):
        detail = f"label {entry.label}, classes are 0 to {classes - 1}"
        return replace(entry, label=None, reason="label_out_of_range", detail=detail)
    return entry


def _one_of_a_key(key: str, entries: Entry | list[Entry]) -> Iterator[Entry]:
    if isinstance(entries, Entry):
        yield entries
        return
    first, *others = sorted(entries, key=_rank)
    yield first
    for other in others:
        if other.reason:
            yield other
        else:
            detail = f"key {key} belongs to {first.source}"
            yield replace(other, label=None, reason="duplicate_key", detail=detail)


def _rank(entry: Entry) -> tuple[bool, int, str, tuple[int, ...], str]:
    return (bool(entry.reason), _PRECEDENCE.get(entry.split, 2), entry.source, all_labels(entry), entry.reason)


def all_labels(entry: Entry) -> tuple[int, ...]:
    """All that an entry has: one of a classification, none where it is refused."""
    label = entry.label
    return () if label is None else (label,) if isinstance(label, int) else label
