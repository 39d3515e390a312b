"""What every corpus reader gives: a listing of entries that is cheap, and the bytes of one entry on demand."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

#: An index into the corpus's classes; of a multi-label corpus all of an entry, each once, ascending.
Label = int | tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One entry of a corpus as its listing names it, its image or text not yet read.

    Attributes:
        source: the corpus's own name of the entry (a path relative to the root, for most formats): its identity.
        key: a key that the corpus gives by itself (WebDataset); None where it is derived from `source`.
        split: an official split ("train", "holdout", "val", "test") which wins over the hash, or None.
        label: None exactly where `reason` is set; () of a pair.
        text: the caption of a pair; None of all others.
        reason, detail: why the listing already refuses the entry (`rhostream.schema.REJECT_REASONS`), else "".
        extra: values of the corpus's `extra_columns`, kept in the index; None or absent where unknown.
        locator: whatever the reader needs to find the bytes beside `source` (offsets in a tar, say).
    """

    source: str
    key: str | None = None
    split: str | None = None
    label: Label | None = None
    text: str | None = None
    reason: str = ""
    detail: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    locator: tuple[Any, ...] = ()


class Corpus(Protocol):
    """A reader. It is pickled to worker processes, so it holds settings and no open files.

    One of texts or pairs also has `fields`, see `fields_of`.
    """

    classes: tuple[str, ...]
    extra_columns: Mapping[str, pa.DataType]

    def entries(self) -> Iterator[Entry]:
        """Every entry, good or bad, in any order that the corpus alone determines."""
        ...

    def read(self, entry: Entry) -> bytes:
        """The image file or the text of an entry, as found; of a pair the image.

        Raises:
            FileNotFoundError: the entry is listed and its file is not there.
            OSError: it is there and cannot be read.
        """
        ...


@runtime_checkable
class HoldsScratch(Protocol):
    """A reader that keeps files outside the workspace while entries are read, in any of the processes that read."""

    def remove_scratch(self) -> None:
        """Remove them: nothing more is to be read. Whoever reads all the same has them made anew."""
        ...


def fields_of(corpus: Corpus) -> tuple[str, ...]:
    """What the entries have, of `rhostream.loaders.index.FIELDS`; images, where the reader says nothing."""
    fields: tuple[str, ...] = getattr(corpus, "fields", ("image",))
    return fields
