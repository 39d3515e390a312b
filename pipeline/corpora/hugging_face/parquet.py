"""Parquet files with the images or texts in a column, as `datasets` pushes them to its hub."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from rhostream.errors import CorpusError
from rhostream.loaders.storage import UnreadableError, opened_parquet, record_batches
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.corpora.hugging_face.features import features_of
from rhostream.pipeline.corpora.hugging_face.rows import (
    ROWS_AT_ONCE,
    RowOptions,
    Rows,
    Split,
    chosen_splits,
    unreadable,
)
from rhostream.pipeline.corpora.paths import corpus_root
from rhostream.pipeline.corpora.splits import official_split
from rhostream.pipeline.corpora.unpacked import UnpackedColumn

_NUMBERED: Final = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?")


@dataclass(frozen=True, kw_only=True)
class ParquetOptions(RowOptions):
    """Attributes:
    files: glob of the files, relative to the root; default all `*.parquet` at any depth.
    """

    files: str = "**/*.parquet"


@dataclass(frozen=True, kw_only=True)
class ParquetPart:
    """One file of a split, its path relative to the root."""

    file: str
    split: Split


class HuggingFaceParquet:
    """Every row is an entry, its source `<split>/<number of the row in it>` or `<split>/<value of the key column>`.

    The split is told by the file's name (`train-00000-of-00005.parquet`, `train.parquet`) or its folder's
    (`train/0000.parquet`); files of which no split is told are of none. Classes are the manifest's, else those of the
    label column's ClassLabel, else its distinct values. With a text column the entries are texts. An image without
    bytes is read from the file that its path names, relative to the root, and is `missing` where there is none.
    """

    Options = ParquetOptions

    def __init__(self, manifest: Manifest, options: ParquetOptions) -> None:
        root = corpus_root(manifest)
        self._root = root.parent if root.is_file() else root
        files = [root] if root.is_file() else sorted(path for path in root.glob(options.files) if path.is_file())
        if not files:
            raise CorpusError(f"{root} has no files {options.files}: correct the root, or [options] files")
        self._parts = _parts(self._root, files, options)
        schema = self._schema()
        first = self._root / self._parts[0].file
        self._rows = Rows(manifest, options, schema, features_of(schema), self._root, str(first))
        self.extra_columns, self.fields = self._rows.extra_columns, self._rows.fields
        self.classes = self._rows.classes(manifest.classes, self._all_batches)

    def entries(self) -> Iterator[Entry]:
        parsers = self._rows.parsers(self.classes)
        numbers: dict[str, int] = {}
        for part in self._parts:
            begin = number = numbers.get(part.split.name, 0)
            for batch in self._batches(part, self._rows.leaves):
                locators = [(part.file, number - begin + row) for row in range(batch.num_rows)]
                yield from self._rows.entries(part.split, number, batch, locators, parsers)
                number += batch.num_rows
            numbers[part.split.name] = number

    def read(self, entry: Entry) -> bytes:
        file, row, path = entry.locator
        columns = (UnpackedColumn(self._root / file, leaf) for leaf in self._rows.content_leaves)
        return self._rows.content_of([column.value(row) for column in columns], path)

    def remove_scratch(self) -> None:
        for part in self._parts:
            for leaf in self._rows.content_leaves:
                UnpackedColumn(self._root / part.file, leaf).remove()

    def _schema(self) -> pa.Schema:
        """Of all files."""
        schemas = []
        for part in self._parts:
            with _opened(self._root / part.file) as file:
                schemas.append(file.schema_arrow)
            if not schemas[-1].equals(schemas[0]) or features_of(schemas[-1]) != features_of(schemas[0]):
                raise CorpusError(
                    f"{self._root / part.file} has other columns, types or classes than {self._parts[0].file}: name "
                    "the folder of one dataset as the root, or choose its files by [options] files"
                )
        return schemas[0]

    def _all_batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        for part in self._parts:
            yield from self._batches(part, columns)

    def _batches(self, part: ParquetPart, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with _opened(self._root / part.file) as file:
            yield from record_batches(file, columns, ROWS_AT_ONCE)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with opened_parquet(path) as file:
            yield file
    except (FileNotFoundError, UnreadableError) as error:
        raise unreadable(path, error) from error


def _parts(root: Path, files: list[Path], options: ParquetOptions) -> list[ParquetPart]:
    """Sorted by path.

    Raises:
        CorpusError: a file of a numbered series is missing, or a split lies in several folders.
    """
    names = [file.relative_to(root).as_posix() for file in files]
    splits = {name: _split_of(name) for name in names}
    chosen = chosen_splits(dict.fromkeys(splits.values()), options, root)
    folders: dict[str, set[str]] = {}
    series: dict[tuple[str, int], set[int]] = {}
    for name in names:
        if splits[name] not in chosen:
            continue
        path = Path(name)
        folders.setdefault(splits[name], set()).add(path.parent.as_posix())
        if numbered := _NUMBERED.fullmatch(path.stem):
            key = ((path.parent / numbered["split"]).as_posix(), int(numbered["count"]))
            series.setdefault(key, set()).add(int(numbered["number"]))
    for split, found in folders.items():
        if split and len(found) > 1:
            raise CorpusError(
                f"{root} holds split {split!r} in several folders ({', '.join(sorted(found))}): name one of them as "
                "the root, or choose by [options] files"
            )
    for (split, count), numbers in series.items():
        if missing := sorted(set(range(count)) - numbers):
            raise CorpusError(
                f"{root} lacks {split}-{missing[0]:05d}-of-{count:05d}.parquet ({len(missing)} of {count}): fetch the "
                "dataset again, or choose what is there by [options] files"
            )
    return [ParquetPart(file=name, split=chosen[splits[name]]) for name in names if splits[name] in chosen]


def _split_of(name: str) -> str:
    """The split that a file's name tells, else its folder's; "" for none."""
    path = Path(name)
    numbered = _NUMBERED.fullmatch(path.stem)
    if numbered is not None:
        return numbered["split"]
    return next((each for each in (path.stem, path.parent.name) if official_split(each)), "")
