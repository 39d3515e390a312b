"""Folders of images with a `metadata.csv`, `.jsonl` or `.parquet` beside them: the ImageFolder of `datasets`."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pyarrow as pa

from rhostream.errors import ConfigError, CorpusError
from rhostream.loaders.storage import read_file
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.corpora.folders import IMAGE_EXTENSIONS, files_below, printable, split_folders
from rhostream.pipeline.corpora.paths import corpus_root
from rhostream.pipeline.corpora.splits import checked_splits
from rhostream.pipeline.corpora.table import TableOptions, TableRows

_METADATA: Final = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


@dataclass(frozen=True, kw_only=True)
class HuggingFaceImageFolderOptions:
    """Attributes:
    path_column: the image's path, relative to the folder of its metadata file.
    label_column, text_column, separator, class_columns, absent, extra: see `TableOptions`.
    splits: names of the top folders, each with "train", "holdout", "val" or "test"; found by itself where every top
        folder is called train, holdout, val, valid, validation or test.
    """

    path_column: str = "file_name"
    label_column: str = "label"
    text_column: str = ""
    separator: str = ""
    class_columns: tuple[str, ...] = ()
    absent: tuple[str, ...] = ("0", "false")
    splits: dict[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] | None = None


class HuggingFaceImageFolder:
    """Every row of a metadata file is an entry, its path relative to the root the source.

    There is one metadata file in the folder of each split, or in folders below it; one in the root where there are no
    folders of splits. An image that no row names is refused as `label_missing`, or `caption_missing` of pairs. Other
    columns, `clean_label`, classes and captions are as those of a `Table`.
    """

    Options = HuggingFaceImageFolderOptions

    def __init__(self, manifest: Manifest, options: HuggingFaceImageFolderOptions) -> None:
        self._root = corpus_root(manifest)
        if not self._root.is_dir():
            raise CorpusError(
                f"{self._root} is a file: hf_imagefolder reads a folder with metadata.csv or .jsonl in it"
            )
        self._splits = split_folders(self._root, checked_splits(options.splits, "[options] splits"))
        if options.text_column and manifest.task != "pairs":
            raise ConfigError('[options] text_column is of pairs: say task = "pairs" in the manifest, or leave it out')
        of_table = TableOptions(**{name: value for name, value in vars(options).items() if name != "splits"})
        self._tables: dict[str, TableRows] = {}
        for top, _ in self._splits:
            for file in _metadata_files(top):
                self._tables[file] = TableRows(replace(manifest, root=file), of_table)
        if not self._tables:
            raise CorpusError(
                f"{self._root} has no {', '.join(_METADATA)} in its folders: folders named for classes are read by "
                "format imagefolder"
            )
        tables = list(self._tables.values())
        self.extra_columns = _common_types(self._root, tables)
        self.fields = tables[0].fields
        self.classes = tables[0].classes(tables)
        self._unnamed = "caption_missing" if "text" in self.fields else "label_missing"

    def entries(self) -> Iterator[Entry]:
        for top, split in self._splits:
            named: set[str] = set()
            for file, table in self._tables.items():
                if file.startswith(f"{top}/"):
                    folder = Path(file).parent.relative_to(self._root).as_posix()
                    for entry in table.entries(self.classes):
                        source = entry.source if folder == "." else f"{folder}/{entry.source}"
                        named.add(source)
                        yield replace(entry, source=source, split=split)
            for path in files_below(top, ()):
                name = Path(path).relative_to(self._root).as_posix()
                if name not in named and Path(path).suffix.lower() in IMAGE_EXTENSIONS:
                    detail = "no row of a metadata file names it"
                    yield Entry(source=printable(name), split=split, reason=self._unnamed, detail=detail)

    def read(self, entry: Entry) -> bytes:
        return read_file(self._root / entry.source)


def _metadata_files(top: str) -> list[str]:
    """Sorted; one a folder.

    Raises:
        CorpusError: a folder has several.
    """
    found = [path for path in files_below(top, ()) if Path(path).name in _METADATA]
    for one, other in itertools.pairwise(found):
        if Path(one).parent == Path(other).parent:
            raise CorpusError(
                f"{Path(one).parent} has {Path(one).name} and {Path(other).name}: leave one of them there"
            )
    return found


def _common_types(root: Path, tables: list[TableRows]) -> Mapping[str, pa.DataType]:
    """The extra columns of all tables."""
    names = list(tables[0].extra_columns)
    if any(list(table.extra_columns) != names for table in tables):
        raise CorpusError(f"{root}: metadata files have other columns than each other: choose with [options] extra")
    try:
        schemas = [pa.schema(list(table.extra_columns.items())) for table in tables]
        united = pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        raise CorpusError(
            f"{root}: a column's type differs between metadata files ({error}); write them alike"
        ) from error
    return {name: united.field(name).type for name in names}
