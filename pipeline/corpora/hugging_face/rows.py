"""Rows with a column of images or texts, a label column and others: what they are as entries of a corpus."""

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rhostream.errors import ConfigError, CorpusError
from rhostream.loaders.decode import PAIR_SEPARATOR
from rhostream.loaders.storage import UnreadableError, read_file
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora.base import Entry, Label
from rhostream.pipeline.corpora.captions import parse_caption
from rhostream.pipeline.corpora.columns import CLEAN_LABEL, CLEAN_LABEL_TYPE, index_columns
from rhostream.pipeline.corpora.hugging_face.features import ClassLabelParser, class_names
from rhostream.pipeline.corpora.labels import Parser, derive_classes, label_parser, label_text, label_texts
from rhostream.pipeline.corpora.paths import relative_name
from rhostream.pipeline.corpora.splits import checked_splits, official_split
from rhostream.pipeline.corpora.table_files import flat_column, holds_bytes, holds_lists, is_bytes

ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """Attributes:
    image_column: the images: a struct of `bytes` and `path`, as `datasets` writes them, or bytes.
    text_column: the texts, in place of the images; of a corpus of pairs the captions.
    second_text_column: the second text of each pair of texts.
    label_column: a class name or class number; of a multi-label corpus a list of them, or a text, see `separator`.
    separator: of a multi-label corpus: what stands between the labels of a text.
    key_column: what names a sample for good, such as an id; by default the number of its row in its split.
    splits: which splits are read, and what they are: "train", "holdout", "val" or "test"; by default all of
        them, by their names.
    extra: columns to keep in the index; default all others but those with bytes.
    """

    image_column: str = "image"
    text_column: str = ""
    second_text_column: str = ""
    label_column: str = "label"
    separator: str = ""
    key_column: str = ""
    splits: dict[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Split:
    """A split of a dataset.

    Attributes:
        name: the dataset's own; "" where it has none.
        official: "train", "holdout", "val" or "test"; None leaves its samples to the hash.
    """

    name: str
    official: str | None


def chosen_splits(names: Iterable[str], options: RowOptions, root: Path) -> dict[str, Split]:
    """The splits of a dataset that are read, by name, in the order of `names`.

    Raises:
        ConfigError: `[options] splits` names one that is not there, or maps it to what is none.
        CorpusError: a name that tells nothing.
    """
    names, named = list(names), checked_splits(options.splits, "[options] splits")
    if strange := sorted(set(named) - set(names)):
        raise ConfigError(f"[options] splits: {root} has no split {strange[0]!r}, only {', '.join(names) or 'none'}")
    if named:
        return {name: Split(name=name, official=named[name]) for name in names if name in named}
    unknown = [name for name in names if name and official_split(name) is None]
    if unknown:
        raise CorpusError(
            f"{root}: split {unknown[0]!r} is neither train, val nor test by its name; say which splits to read, and "
            f'what they are, in the manifest: [options] splits = {{ "{unknown[0]}" = "train" }}'
        )
    return {name: Split(name=name, official=official_split(name)) for name in names}


class Rows:
    """From the columns of a dataset to entries.

    Attributes:
        listed: the columns that a listing reads, without the images' bytes, or the texts.
        extra_columns: see `Corpus`.

    Args:
        schema: of the dataset; its columns' types decide.
        features: see `features_of`.
        root: folder that paths in the image column are relative to.
        where: the dataset, for messages.

    Raises:
        ConfigError: options that do not go with the columns, or with the manifest's task.
        CorpusError: a column is not there, or of a type that is none of its kind.
    """

    def __init__(
        self,
        manifest: Manifest,
        options: RowOptions,
        schema: pa.Schema,
        features: Mapping[str, Any],
        root: Path,
        where: str,
    ) -> None:
        self._options, self._task, self._where = options, manifest.task, where
        self._root = root
        if options.separator and manifest.task != "multi_label":
            raise ConfigError(
                '[options] separator is of multi-label corpora: say task = "multi_label" in the manifest, or leave it '
                "out"
            )
        pairs = manifest.task == "pairs"
        if pairs and not options.text_column:
            raise ConfigError("[options] text_column: name the column of the captions")
        if options.second_text_column and (pairs or not options.text_column):
            raise ConfigError(
                "[options] second_text_column is of corpora of texts: "
                f"{'leave it out' if pairs else 'give text_column'}"
            )
        self._max_text_bytes = manifest.max_text_bytes
        self._texts = [] if pairs else [name for name in (options.text_column, options.second_text_column) if name]
        self.fields = ("image", "text") if pairs else ("text",) if self._texts else ("image",)
        #: The columns that `read` of a corpus reads.
        self.contents = self._texts or [options.image_column]
        named = options.text_column if pairs else options.label_column
        own = [*self.contents, named, *([options.key_column] if options.key_column else [])]
        self._require(schema, [*own, *(options.extra or ())])
        for name in self._texts:
            self._refuse_no_text(name, schema.field(name).type)
        content = schema.field(self.contents[0]).type
        self._in_struct = not self._texts and pa.types.is_struct(content)
        if not self._texts:
            self._refuse_no_image(content)
        if manifest.task == "classification" and holds_lists(schema.field(options.label_column).type):
            raise ConfigError(
                f'column {options.label_column!r} of {where} holds lists of labels: say task = "multi_label" in the '
                "manifest"
            )
        others = [each.name for each in schema if each.name not in own and not holds_bytes(each.type)]
        extra = others if options.extra is None else options.extra
        self._extra = index_columns(extra, manifest.task, where)
        if binary := [name for name in self._extra if holds_bytes(schema.field(name).type)]:
            raise ConfigError(f"[options] extra: column {binary[0]!r} of {where} holds bytes, which no index keeps")
        paths = self._in_struct and content.get_field_index("path") >= 0
        self._path = f"{options.image_column}.path" if paths else ""
        self.listed = list(dict.fromkeys([*own[len(self.contents) :], *self._extra]))
        self._names = {
            name: class_names(features, name) if _holds_numbers(schema.field(name).type) else ()
            for name in (set() if pairs else {options.label_column, CLEAN_LABEL} & set(self.listed))
        }
        flat = {name: flat_column(pa.chunked_array([], schema.field(name).type)).type for name in self._extra}
        self.extra_columns = {
            kept: CLEAN_LABEL_TYPE if kept == CLEAN_LABEL else flat[name] for name, kept in self._extra.items()
        }

    @property
    def leaves(self) -> list[str]:
        """The listed columns, and that of the images' paths, as Parquet names them."""
        return [*self.listed, *([self._path] if self._path else [])]

    @property
    def content_leaves(self) -> list[str]:
        """The columns of the images' bytes, or of the texts, as Parquet names them."""
        return [f"{name}.bytes" if self._in_struct else name for name in self.contents]

    def classes(
        self, given: tuple[str, ...], batches: Callable[[list[str]], Iterator[pa.RecordBatch]]
    ) -> tuple[str, ...]:
        """The manifest's, else those that the features name, else the distinct labels.

        Args:
            batches: the rows of all splits, these columns of them.
        """
        column, task, separator = self._options.label_column, self._task, self._options.separator
        if task == "pairs":
            return ()
        if given or self._names[column]:
            return given or self._names[column]
        texts: set[str | None] = set()
        for batch in batches([column]):
            values = flat_column(pa.chunked_array([batch.column(column)])).unique()
            texts.update(text for raw in values.to_pylist() for text in label_texts(raw, task, separator))
        return derive_classes(texts, f"column {column!r} of {self._where}")

    def parsers(self, classes: Sequence[str]) -> dict[str, Parser]:
        """Of the label column and, where there is one, the column of clean labels."""
        plain = label_parser(classes, self._task, self._options.separator)
        return {name: ClassLabelParser(names, plain) if names else plain for name, names in self._names.items()}

    def entries(
        self,
        split: Split,
        first: int,
        batch: pa.RecordBatch,
        locators: Sequence[tuple[Any, ...]],
        parsers: Mapping[str, Parser],
    ) -> Iterator[Entry]:
        """The entries of some rows.

        Args:
            first: number of the first row in its split.
            locators: of each row, what its reader needs; the path is put behind it.
            parsers: see `parsers`.
        """
        options = self._options
        columns = {name: self._values(batch, name) for name in self.listed}
        paths = pc.struct_field(batch.column(options.image_column), "path").to_pylist() if self._path else None
        for row, locator in enumerate(locators):
            number = first + row
            label: Label | None
            text = None
            if self._task == "pairs":
                caption = columns[options.text_column][row]
                text, reason, detail = parse_caption("" if caption is None else str(caption), self._max_text_bytes)
                label = None if text is None else ()
            else:
                label, reason, detail = parsers[options.label_column].parse(columns[options.label_column][row])
            extra = {kept: columns[name][row] for name, kept in self._extra.items()}
            if CLEAN_LABEL in extra:
                extra[CLEAN_LABEL] = parsers[CLEAN_LABEL].parse(extra[CLEAN_LABEL])[0]
            name = label_text(columns[options.key_column][row]) if options.key_column else f"{number:08d}"
            if name is None:
                raise CorpusError(
                    f"{self._where}: {options.key_column} is empty in row {number} of split {split.name!r}: name "
                    "another [options] key_column, or none"
                )
            yield Entry(
                source=f"{split.name}/{name}" if split.name else name,
                split=split.official,
                label=label,
                text=text,
                reason=reason,
                detail=detail,
                extra=extra,
                locator=(*locator, (paths[row] if paths else None) or ""),
            )

    def content_of(self, values: Sequence[bytes | None], path: str) -> bytes:
        """The image or the text of a row, from its values of `content_leaves`; two texts are one, see `PAIR_SEPARATOR`.

        Args:
            path: of a row without bytes.

        Raises:
            FileNotFoundError: an image without bytes names no file, or one that is not in the corpus.
        """
        if self._texts:
            texts = [value or b"" for value in values]
            return PAIR_SEPARATOR.encode().join(texts) if all(texts) else b""
        (image,) = values
        return self._file_of(path) if image is None else image

    def _file_of(self, path: str) -> bytes:
        """The image of a row that holds no bytes, from the file that it names.

        Raises:
            FileNotFoundError: it names none, or one that is not in the corpus.
        """
        name = relative_name(path, self._root)
        if name is None:
            raise FileNotFoundError(
                errno.ENOENT, f"no bytes, and {'no path' if not path else f'{path!r} leads out of the root'}"
            )
        try:
            return read_file(self._root / name)
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, f"no bytes, and no file {path!r} below the root") from error

    def _values(self, batch: pa.RecordBatch, name: str) -> list[Any]:
        column = batch.column(name)
        if name == self._options.label_column and holds_lists(column.type):
            return list(column.to_pylist())
        return list(flat_column(pa.chunked_array([column])).to_pylist())

    def _require(self, schema: pa.Schema, needed: Collection[str]) -> None:
        if len(set(schema.names)) < len(schema.names):
            raise CorpusError(f"{self._where} has two columns of one name among {', '.join(schema.names)}: rename one")
        if absent := [name for name in needed if name not in schema.names]:
            raise CorpusError(
                f"{self._where} has no column {absent[0]!r}, only {', '.join(schema.names)}: set image_column, "
                "text_column (of texts), label_column, key_column or extra in [options]"
            )

    def _refuse_no_text(self, name: str, kind: pa.DataType) -> None:
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or is_bytes(kind)):
            raise CorpusError(
                f"column {name!r} of {self._where} is of type {str(kind)[:80]}, no text: set text_column in [options]"
            )

    def _refuse_no_image(self, kind: pa.DataType) -> None:
        inner = kind
        if pa.types.is_struct(kind):
            place = kind.get_field_index("bytes")
            inner = kind.field(place).type if place >= 0 else pa.null()
        if not is_bytes(inner):
            raise CorpusError(
                f"column {self._options.image_column!r} of {self._where} is of type {str(kind)[:80]}, no image with "
                "its bytes: set image_column (of texts text_column) in [options]; where a column names files, format "
                "table reads it"
            )


def _holds_numbers(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind.value_type if holds_lists(kind) else kind))


def unreadable(path: Path, error: FileNotFoundError | UnreadableError) -> CorpusError:
    """A file of a dataset that is not there or damaged, as the user is told of it."""
    cause = error.cause if isinstance(error, UnreadableError) else "is not there"
    return CorpusError(f"{path} {cause}: fetch or save the dataset again")
