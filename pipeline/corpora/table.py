"""A table of paths and labels: CSV, TSV or Parquet."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from rhostream.errors import ConfigError, CorpusError
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.corpora.columns import CLEAN_LABEL, CLEAN_LABEL_TYPE, extra_column_name
from rhostream.pipeline.corpora.labels import LabelParser, derive_classes, label_text
from rhostream.pipeline.corpora.paths import corpus_root, relative_name
from rhostream.pipeline.corpora.splits import checked_splits, official_split
from rhostream.pipeline.corpora.table_files import TABLE_SUFFIXES, column_names, read_tables

_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Attributes:
    file: name or glob of the table's files, relative to the root; default `labels.csv`, else the only table there.
    path_column: the image's path, relative to `image_root`.
    label_column: a class name or class number.
    split_column: the official split; "" for none. An empty cell leaves the entry to the hash.
    splits: what values of `split_column` mean, as "train", "val" or "test", where they are not such words.
    image_root: folder of the images, relative to the root.
    extra: columns to keep in the index; default all others.
    """

    file: str = ""
    path_column: str = "path"
    label_column: str = "label"
    split_column: str = ""
    splits: dict[str, str] = field(default_factory=dict)
    image_root: str = ""
    extra: tuple[str, ...] | None = None


class Table:
    """Every row is an entry, its path relative to the images' folder the source.

    Other columns are kept with their types, nested ones as JSON text; one whose name the index needs for itself is kept
    as `<name>_given`. A column `clean_label` is read like the label and kept as a class number. A path that leads out
    of the images' folder is refused as `missing`. Without classes in the manifest, they are the distinct labels.
    """

    Options = TableOptions

    def __init__(self, manifest: Manifest, options: TableOptions) -> None:
        root = corpus_root(manifest)
        self._options = options
        self._splits = checked_splits(options.splits, "[options] splits")
        self._files = _table_files(root, options.file)
        self._images = (root.parent if root.is_file() else root) / options.image_root
        if not self._images.is_dir():
            raise CorpusError(f"{self._images}: the folder of the images is not there; correct [options] image_root")
        names = column_names(self._files[0])
        own = [options.path_column, options.label_column, *([options.split_column] if options.split_column else [])]
        self._extra = [name for name in names if name not in own] if options.extra is None else list(options.extra)
        self._columns = list(dict.fromkeys([*own, *self._extra]))
        for path in self._files:
            _require(path, column_names(path), self._columns)
        self._text_columns = [name for name in {*own, CLEAN_LABEL} if name in self._columns]

        table = self._table()
        self.classes = manifest.classes or derive_classes(
            map(label_text, table[options.label_column].unique().to_pylist()),
            f"column {options.label_column!r} of {self._files[0]}",
        )
        self.extra_columns: Mapping[str, pa.DataType] = self._extra_types(table)

    def entries(self) -> Iterator[Entry]:
        parser = LabelParser(self.classes)
        number = 0
        for batch in self._table().to_batches(max_chunksize=_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                number += 1
                yield self._entry(row, number, parser)

    def read(self, entry: Entry) -> bytes:
        return (self._images / entry.source).read_bytes()

    def _entry(self, row: dict[str, Any], number: int, parser: LabelParser) -> Entry:
        path = row[self._options.path_column]
        given = "" if path is None else str(path).strip()
        source = relative_name(given, self._images)
        if source is None:
            detail = f"row {number}: " + (f"{given!r} leads out of the images' folder" if given else "no path")
            return Entry(source=given or f"{self._files[0].name}:{number}", reason="missing", detail=detail)
        label, reason, detail = parser.parse(row[self._options.label_column])
        extra = {extra_column_name(name): row[name] for name in self._extra}
        if CLEAN_LABEL in extra:
            extra[CLEAN_LABEL] = parser.parse(extra[CLEAN_LABEL])[0]
        split = self._split(row[self._options.split_column], number) if self._options.split_column else None
        return Entry(source=source, split=split, label=label, reason=reason, detail=detail, extra=extra)

    def _split(self, value: Any, number: int) -> str | None:
        name = label_text(value)
        if name is None:
            return None
        split = self._splits.get(name) or official_split(name)
        if split is None:
            raise CorpusError(
                f"row {number} of {self._files[0]}: {self._options.split_column} = {name!r} is no known "
                f'split; say which in the manifest: [options] splits = {{ "{name}" = "train" }}'
            )
        return split

    def _table(self) -> pa.Table:
        return read_tables(self._files, self._columns, self._text_columns)

    def _extra_types(self, table: pa.Table) -> dict[str, pa.DataType]:
        types: dict[str, pa.DataType] = {}
        for name in self._extra:
            kept = extra_column_name(name)
            if kept.lower() in (known.lower() for known in types):
                raise ConfigError(
                    f"{self._files[0]}: two columns would be {kept!r} in the index, where upper and lower case "
                    "are one; leave one out with [options] extra"
                )
            types[kept] = CLEAN_LABEL_TYPE if name == CLEAN_LABEL else table.schema.field(name).type
        return types


def _table_files(root: Path, pattern: str) -> list[Path]:
    """The files of the table, sorted.

    Raises:
        CorpusError: none, or no way to tell which.
    """
    if root.is_file():
        found = [root]
    elif pattern:
        found = [root / pattern] if (root / pattern).is_file() else sorted(root.glob(pattern))
    elif (root / "labels.csv").is_file():
        found = [root / "labels.csv"]
    else:
        found = sorted(path for path in root.iterdir() if path.suffix.lower() in TABLE_SUFFIXES)
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise CorpusError(f"{root} has several tables ({names}): choose with [options] file, a name or a glob")
    if not found:
        raise CorpusError(f"{root} has no {pattern or 'labels.csv, *.csv, *.tsv or *.parquet'}: correct [options] file")
    for path in found:
        if path.suffix.lower() not in TABLE_SUFFIXES:
            raise CorpusError(f"{path} is no table: its name must end in {', '.join(TABLE_SUFFIXES)}")
    return found


def _require(path: Path, names: list[str], needed: list[str]) -> None:
    if len(set(names)) < len(names):
        raise CorpusError(f"{path} has two columns of one name among {', '.join(names)}: rename one")
    absent = [name for name in needed if name not in names]
    if absent:
        raise CorpusError(
            f"{path} has no column {absent[0]!r}, only {', '.join(names)}: set path_column, label_column, "
            "split_column or extra in [options]"
        )
