"""Folders that `Dataset.save_to_disk` and `DatasetDict.save_to_disk` of `datasets` have written."""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from rhostream.errors import CorpusError
from rhostream.loaders.storage import (
    ArrowStream,
    UnreadableError,
    decode_card,
    open_file,
    opened_arrow,
    read_file,
    shaped,
)
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.corpora.hugging_face.rows import RowOptions, Rows, Split, chosen_splits, unreadable
from rhostream.pipeline.corpora.paths import corpus_root, relative_name

Card = TypeVar("Card")


@dataclass(frozen=True, kw_only=True)
class _Splits:
    """What we read of a `dataset_dict.json`."""

    splits: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _DataFile:
    filename: str


@dataclass(frozen=True, kw_only=True)
class _State:
    """What we read of a `state.json`."""

    _data_files: tuple[_DataFile, ...]
    _split: str | None = None
    _indices_data_files: Any = None


@dataclass(frozen=True, kw_only=True)
class _Info:
    """What we read of a `dataset_info.json`."""

    features: dict[str, Any]


class HuggingFaceDisk:
    """Every row is an entry, its source `<split>/<number of the row in it>` or `<split>/<value of the key column>`.

    The root is the folder of a `DatasetDict`, whose splits are read, or of one `Dataset`. Classes are the manifest's,
    else those of the label column's ClassLabel, else its distinct values. With a text column the entries are texts.
    Images and texts are read where they lie in the Arrow streams. An image without bytes is read from the file that its
    path names, relative to the root, and is `missing` where there is none.
    """

    Options = RowOptions

    def __init__(self, manifest: Manifest, options: RowOptions) -> None:
        self._root = corpus_root(manifest)
        self._files = _files(self._root, options)
        schema, features = self._columns()
        self._rows = Rows(manifest, options, schema, features, self._root, str(self._root / self._files[0][1]))
        self.extra_columns, self.fields = self._rows.extra_columns, self._rows.fields
        self.classes = self._rows.classes(manifest.classes, self._all_batches)

    def entries(self) -> Iterator[Entry]:
        parsers = self._rows.parsers(self.classes)
        numbers: dict[str, int] = {}
        for split, file in self._files:
            with _opened(self._root / file) as stream:
                for batch in stream.batches():
                    spans = [stream.spans(self._content(batch, name)) for name in self._rows.contents]
                    locators = [(file, *row) for row in zip(*spans, strict=True)]
                    number = numbers.get(split.name, 0)
                    yield from self._rows.entries(split, number, batch, locators, parsers)
                    numbers[split.name] = number + batch.num_rows

    def read(self, entry: Entry) -> bytes:
        file, *spans, path = entry.locator
        with open_file(self._root / file) as stream:
            values = [None if span is None else os.pread(stream.fileno(), span[1], span[0]) for span in spans]
        if any(span is not None and len(value or b"") != span[1] for span, value in zip(spans, values, strict=True)):
            raise OSError(errno.EIO, f"{file} has been cut short")
        return self._rows.content_of(values, path)

    def _content(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        """The column's bytes, of images or texts."""
        column = batch.column(name)
        return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column

    def _columns(self) -> tuple[pa.Schema, Mapping[str, Any]]:
        """Schema and features of all files."""
        found: list[tuple[pa.Schema, Mapping[str, Any]]] = []
        for _, file in self._files:
            info = _card((self._root / file).parent / "dataset_info.json", _Info)
            with _opened(self._root / file) as stream:
                found.append((stream.schema, info.features))
            if not found[-1][0].equals(found[0][0]) or found[-1][1] != found[0][1]:
                raise CorpusError(
                    f"{self._root / file} has other columns, types or classes than {self._files[0][1]}: save them "
                    "alike, or choose what is read by [options] splits"
                )
        return found[0]

    def _all_batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        for _, file in self._files:
            with _opened(self._root / file) as stream:
                for batch in stream.batches():
                    yield batch.select(columns)


@contextmanager
def _opened(path: Path) -> Iterator[ArrowStream]:
    try:
        with opened_arrow(path) as stream:
            yield stream
    except (FileNotFoundError, UnreadableError) as error:
        raise unreadable(path, error) from error


def _files(root: Path, options: RowOptions) -> list[tuple[Split, str]]:
    """The streams of the splits that are read, relative to the root."""
    if (root / "dataset_dict.json").is_file():
        names = _card(root / "dataset_dict.json", _Splits).splits
        folders = {name: name for name in names}
    elif (root / "state.json").is_file():
        folders = {_card(root / "state.json", _State)._split or "": ""}
    else:
        raise CorpusError(
            f"{root} has neither dataset_dict.json nor state.json: name a folder that `save_to_disk` wrote as the root"
        )
    found = []
    for name, split in chosen_splits(folders, options, root).items():
        card = root / folders[name] / "state.json"
        state = _card(card, _State)
        if state._indices_data_files:
            raise CorpusError(f"{card} tells of indices, which are not read: load the dataset and save it again")
        for file in state._data_files:
            place = relative_name(f"{folders[name]}/{file.filename}".lstrip("/"), root)
            if place is None:
                raise CorpusError(
                    f"{card} names {file.filename!r}, which leads out of the root: save the dataset again"
                )
            found.append((split, place))
    if not found:
        raise CorpusError(f"{root} holds no file with rows: save the dataset again")
    return found


def _card(path: Path, kind: type[Card]) -> Card:
    try:
        return shaped(decode_card(read_file(path)), kind)
    except (FileNotFoundError, UnreadableError) as error:
        raise unreadable(path, error) from error
