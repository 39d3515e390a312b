"""A table of paths or texts and labels: CSV, TSV, JSON lines or Parquet."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from rhostream.errors import ConfigError, CorpusError
from rhostream.loaders.decode import PAIR_SEPARATOR
from rhostream.loaders.storage import read_file
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora.base import Entry, Label
from rhostream.pipeline.corpora.captions import parse_caption
from rhostream.pipeline.corpora.class_columns import ClassColumnsParser, matching_columns
from rhostream.pipeline.corpora.columns import CLEAN_LABEL, CLEAN_LABEL_TYPE, extra_column_name, index_columns
from rhostream.pipeline.corpora.labels import (
    LabelParser,
    Parser,
    derive_classes,
    label_parser,
    label_text,
    label_texts,
)
from rhostream.pipeline.corpora.lookalikes import other_format
from rhostream.pipeline.corpora.paths import corpus_root, relative_name
from rhostream.pipeline.corpora.splits import checked_splits, official_split
from rhostream.pipeline.corpora.table_files import (
    FILE,
    ROW,
    TABLE_SUFFIXES,
    CsvForm,
    holds_bytes,
    holds_lists,
    read_tables,
    table_schema,
)

_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Attributes:
    file: name or glob of the table's files, relative to the root; default `labels.csv`, else the only table there.
    path_column: the image's path, relative to `image_root`.
    text_column: in place of it the text itself, of a corpus of texts; beside it the caption, of one of pairs.
    second_text_column: the second text of each pair of texts.
    key_column: what names a text for good, such as an id; "" names it by its file and row.
    label_column: a class name or class number; of a multi-label corpus a list of them, or a text, see `separator`.
    separator: of a multi-label corpus: what stands between the labels of a text; "" where they are a JSON list.
    class_columns: of a multi-label corpus, in place of `label_column`: names or globs of the columns that say, one for
        each class, whether a sample has it (1 or true).
    absent: the values of these columns that say that it does not; "" lets an empty cell say so.
    split_column: the official split; "" for none. An empty cell leaves the entry to the hash.
    splits: what values of `split_column` mean, as "train", "holdout", "val" or "test", where they are not such words.
    file_splits: the official split of whole files: a name or glob to one of these.
    image_root: folder of the images, relative to the root.
    columns: names of the columns of CSV or TSV files without a line of names.
    quotes: do double quotes around a cell of a CSV or TSV file belong to the file's form, not to the cell?
    extra: columns to keep in the index; default all others.
    """

    file: str = ""
    path_column: str = "path"
    text_column: str = ""
    second_text_column: str = ""
    key_column: str = ""
    label_column: str = "label"
    separator: str = ""
    class_columns: tuple[str, ...] = ()
    absent: tuple[str, ...] = ("0", "false")
    split_column: str = ""
    splits: dict[str, str] = field(default_factory=dict)
    file_splits: dict[str, str] = field(default_factory=dict)
    image_root: str = ""
    columns: tuple[str, ...] = ()
    quotes: bool = True
    extra: tuple[str, ...] | None = None


class TableRows:
    """What a table says of its entries, whichever classes they are among; see `Table`.

    Attributes:
        extra_columns: see `Corpus`.
        class_columns: the columns that say, one for each class, whether a sample has it.

    Raises:
        ConfigError: options that do not go with the manifest's task.
    """

    def __init__(self, manifest: Manifest, options: TableOptions) -> None:
        root = corpus_root(manifest)
        self._options, self._task, self._max_text_bytes = options, manifest.task, manifest.max_text_bytes
        pairs = manifest.task == "pairs"
        if manifest.task != "multi_label" and (options.separator or options.class_columns):
            raise ConfigError(
                '[options] separator and class_columns are of multi-label corpora: say task = "multi_label" in the '
                "manifest, or leave them out"
            )
        if options.separator and options.class_columns:
            raise ConfigError("[options] separator and class_columns: labels stand in one column or in many; give one")
        if (options.second_text_column or options.key_column) and (pairs or not options.text_column):
            raise ConfigError(
                "[options] second_text_column and key_column are of corpora of texts: "
                f"{'leave them out' if pairs else 'give text_column'}"
            )
        if pairs and not options.text_column:
            raise ConfigError("[options] text_column: name the column of the captions")
        self.fields = ("image", "text") if pairs else ("text",) if options.text_column else ("image",)
        self._classes = manifest.classes
        self._splits = checked_splits(options.splits, "[options] splits")
        self._file_splits = checked_splits(options.file_splits, "[options] file_splits")
        self._form = CsvForm(columns=options.columns, quotes=options.quotes)
        self._files = _table_files(root, options.file)
        self._folder = root.parent if root.is_file() else root
        self._images = self._folder / options.image_root
        if not self._images.is_dir():
            raise CorpusError(f"{self._images}: the folder of the images is not there; correct [options] image_root")
        schemas = [table_schema(path, self._form) for path in self._files]
        names = list(schemas[0].names)
        self._texts = [] if pairs else [name for name in (options.text_column, options.second_text_column) if name]
        named = [options.key_column] if self._texts else [options.path_column]
        own = [name for name in (*named, options.split_column) if name]
        self.class_columns = matching_columns(options.class_columns, names, [*own, *self._texts], str(self._files[0]))
        own += self.class_columns or [options.text_column if pairs else options.label_column]
        aside = {*own, *self._texts}
        self._extra = [name for name in names if name not in aside] if options.extra is None else list(options.extra)
        self._columns = list(dict.fromkeys([*own, *self._extra]))
        for path, schema in zip(self._files, schemas, strict=True):
            _refuse_bytes(path, schema, [*own, *self._extra])
            _require(path, list(schema.names), [*self._columns, *self._texts])
        self._text_columns = [name for name in {*own, CLEAN_LABEL} if name in self._columns]
        if manifest.task == "classification" and holds_lists(schemas[0].field(options.label_column).type):
            raise ConfigError(
                f"column {options.label_column!r} of {self._files[0]} holds lists of labels: say task = "
                '"multi_label" in the manifest'
            )
        self.extra_columns: Mapping[str, pa.DataType] = self._extra_types(self._table())

    def entries(self, classes: Sequence[str]) -> Iterator[Entry]:
        """Every row; its label is an index into `classes`."""
        parser = self._parser(classes)
        number = 0
        for batch in self._table().to_batches(max_chunksize=_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                number += 1
                yield self._entry(row, number, parser)

    def labels(self) -> set[str | None]:
        """The distinct texts of the labels."""
        column, task, separator = self._options.label_column, self._task, self._options.separator
        raws = self._table()[column].unique().to_pylist()
        return {text for raw in raws for text in label_texts(raw, task, separator)}

    def classes(self, tables: "Sequence[TableRows]") -> tuple[str, ...]:
        """Of a corpus of these tables, of which this is the first: the manifest's, or those that they tell.

        Raises:
            CorpusError: they tell none.
        """
        if self._task == "pairs":
            return ()
        found_in = f"column {self._options.label_column!r} of {self._files[0]}"
        texts = (text for table in tables for text in table.labels())
        return self._classes or tuple(self.class_columns) or derive_classes(texts, found_in)

    def read(self, entry: Entry) -> bytes:
        """See `Corpus`."""
        if not self._texts:
            return read_file(self._images / entry.source)
        file, row = entry.locator
        cells = [column[row].as_py() or b"" for column in self._text_cells[file].itercolumns()]
        return PAIR_SEPARATOR.encode().join(cells) if all(cells) else b""

    @cached_property
    def _text_cells(self) -> list[pa.Table]:
        """The texts of each file, as bytes."""
        tables = (read_tables([path], self._texts, self._texts, form=self._form, raw=True) for path in self._files)
        return [table.select(self._texts).combine_chunks() for table in tables]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_text_cells"}

    def _entry(self, row: dict[str, Any], number: int, parser: Parser) -> Entry:
        given, source = self._source(row)
        if source is None:
            cause = f"{given!r} leads out of the images' folder" if given else "no path"
            source = given or f"{self._files[0].name}:{number}"
            return Entry(source=source, reason="missing", detail=f"row {number}: {cause}")
        label: Label | None
        text = None
        if self._task == "pairs":
            caption = row[self._options.text_column]
            text, reason, detail = parse_caption("" if caption is None else str(caption), self._max_text_bytes)
            label = None if text is None else ()
        else:
            label, reason, detail = parser.parse(row if self.class_columns else row[self._options.label_column])
        extra = {extra_column_name(name, self._task): row[name] for name in self._extra}
        if CLEAN_LABEL in extra:
            extra[CLEAN_LABEL] = parser.parse(extra[CLEAN_LABEL])[0]
        split = self._split(row[self._options.split_column], number) if self._options.split_column else None
        return Entry(
            source=source,
            split=split or self._split_of_file(row[FILE]),
            label=label,
            text=text,
            reason=reason,
            detail=detail,
            extra=extra,
            locator=(row[FILE], row[ROW]) if self._texts else (),
        )

    def _source(self, row: dict[str, Any]) -> tuple[str, str | None]:
        """What the table calls the entry, and its source; None where it has none."""
        own = self._options.key_column if self._texts else self._options.path_column
        given = "" if not own or row[own] is None else str(row[own]).strip()
        if self._texts:
            file = self._files[row[FILE]].relative_to(self._folder).as_posix()
            return given, given or f"{file}:{row[ROW] + 1}"
        return given, relative_name(given, self._images)

    def _split_of_file(self, number: int) -> str | None:
        name = self._files[number].relative_to(self._folder).as_posix()
        return next((split for glob, split in self._file_splits.items() if fnmatch(name, glob)), None)

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
        listed = "" if self._task != "multi_label" or self.class_columns else self._options.label_column
        return read_tables(self._files, self._columns, self._text_columns, listed, form=self._form)

    def _parser(self, classes: Sequence[str]) -> Parser:
        if not self.class_columns:
            return label_parser(classes, self._task, self._options.separator)
        one = LabelParser(classes)
        numbers = {column: one.parse(column)[0] for column in self.class_columns}
        if strange := [column for column, number in numbers.items() if number is None]:
            raise ConfigError(f"[options] class_columns: {strange[0]!r} is not among the classes of the manifest")
        return ClassColumnsParser(
            {name: number for name, number in numbers.items() if number is not None}, self._options.absent
        )

    def _extra_types(self, table: pa.Table) -> dict[str, pa.DataType]:
        columns = index_columns(self._extra, self._task, str(self._files[0]))
        return {
            kept: CLEAN_LABEL_TYPE if kept == CLEAN_LABEL else table.schema.field(name).type
            for name, kept in columns.items()
        }


class Table:
    """Every row is an entry, its path relative to the images' folder the source; of a text its id, or file and row.

    Other columns are kept with their types, nested ones as JSON text; one whose name the index needs for itself is kept
    as `<name>_given`. A column `clean_label` is read like the label and kept as a class number. A path that leads out
    of the images' folder is refused as `missing`. Without classes in the manifest, they are the distinct labels, or the
    names of the class columns. A pair's caption is the cell of `text_column`, empty where that is.

    Raises:
        ConfigError: options that do not go with the manifest's task.
    """

    Options = TableOptions

    def __init__(self, manifest: Manifest, options: TableOptions) -> None:
        self._rows = rows = TableRows(manifest, options)
        self.classes = rows.classes([rows])
        self.extra_columns, self.fields = rows.extra_columns, rows.fields

    def entries(self) -> Iterator[Entry]:
        return self._rows.entries(self.classes)

    def read(self, entry: Entry) -> bytes:
        return self._rows.read(entry)


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
        remedy = (not pattern and other_format(root)) or "correct [options] file"
        raise CorpusError(f"{root} has no {pattern or 'labels.csv, *.csv, *.tsv, *.jsonl or *.parquet'}: {remedy}")
    for path in found:
        if path.suffix.lower() not in TABLE_SUFFIXES:
            raise CorpusError(f"{path} is no table: its name must end in {', '.join(TABLE_SUFFIXES)}")
    return found


def _refuse_bytes(path: Path, schema: pa.Schema, used: Sequence[str]) -> None:
    """A table of images themselves, or one that holds them beside the paths."""
    binary = [each.name for each in schema if holds_bytes(each.type)]
    if path.suffix.lower() == ".parquet" and binary and (set(binary) & set(used) or not set(used) <= set(schema.names)):
        raise ConfigError(
            f'{path} holds bytes in column {binary[0]!r}, where a table names files: format = "hf_parquet" reads the '
            "images in it; to read the files that another column names, leave it out by [options] extra"
        )


def _require(path: Path, names: list[str], needed: list[str]) -> None:
    if len(set(names)) < len(names):
        raise CorpusError(f"{path} has two columns of one name among {', '.join(names)}: rename one")
    absent = [name for name in needed if name not in names]
    if absent:
        raise CorpusError(
            f"{path} has no column {absent[0]!r}, only {', '.join(names)}: set path_column (or text_column), "
            "label_column, class_columns, split_column or extra in [options]"
        )
