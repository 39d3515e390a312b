"""Folders of images: `<class>/**/<file>` or `<split>/<class>/**/<file>`, as torchvision's ImageFolder reads them."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from rhostream.errors import CorpusError
from rhostream.loaders.storage import read_file
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.corpora.folders import (
    IMAGE_EXTENSIONS,
    files_below,
    identity,
    is_folder,
    printable,
    split_folders,
    visible,
)
from rhostream.pipeline.corpora.labels import LabelParser, label_text
from rhostream.pipeline.corpora.lookalikes import other_format
from rhostream.pipeline.corpora.paths import corpus_root
from rhostream.pipeline.corpora.splits import checked_splits


@dataclass(frozen=True, kw_only=True)
class ImageFolderOptions:
    """Attributes:
    splits: names of the top folders, each with "train", "val" or "test"; found by itself where every top folder
        is called train, val, valid, validation or test.
    """

    splits: dict[str, str] = field(default_factory=dict)


class ImageFolder:
    """Every file below a class folder is an entry, its path relative to the root the source.

    Classes are the class folders in sorted order, as torchvision has them, unless the manifest lists classes: then a
    folder of another name is refused as `label_unknown`. Left out: hidden files and folders, the clutter of file
    managers, and files beside the class folders that have no image's extension (a README); an image there is refused as
    `label_missing`. Links are followed, a link to a folder that contains it is not. Bytes of a name that are not UTF-8
    appear in the source as backslash escapes (`\\xff`).
    """

    Options = ImageFolderOptions
    extra_columns: Mapping[str, pa.DataType] = {}

    def __init__(self, manifest: Manifest, options: ImageFolderOptions) -> None:
        self._root = corpus_root(manifest)
        if not self._root.is_dir():
            raise CorpusError(f"{self._root} is a file: imagefolder reads a folder with one folder a class")
        self._splits = split_folders(self._root, checked_splits(options.splits, "[options] splits"))
        folders = sorted({folder.name for top, _ in self._splits for folder in visible(top) if is_folder(folder)})
        if len(folders) < 2 and not manifest.classes and (other := other_format(self._root)):
            raise CorpusError(f"{self._root} has no folders of classes: {other}")
        if not folders:
            raise CorpusError(
                f"{self._root} has no class folders: imagefolder reads <class>/<file> or "
                "<split>/<class>/<file>; for files with a list of labels use format table"
            )
        self.classes = manifest.classes or tuple(label_text(printable(folder)) or folder for folder in folders)

    def entries(self) -> Iterator[Entry]:
        parser = LabelParser(self.classes)
        for top, split in self._splits:
            above = (identity(str(self._root)), identity(top))
            for child in visible(top):
                if is_folder(child):
                    label, reason, detail = parser.parse(printable(child.name))
                    for path in files_below(child.path, above):
                        yield self._entry(path, split, label, reason, detail)
                elif Path(child.name).suffix.lower() in IMAGE_EXTENSIONS:
                    yield self._entry(child.path, split, None, "label_missing", "in no class folder")

    def read(self, entry: Entry) -> bytes:
        name = os.fsdecode(entry.locator[0]) if entry.locator else entry.source
        return read_file(self._root / name)

    def _entry(self, path: str, split: str | None, label: int | None, reason: str, detail: str) -> Entry:
        name = path.removeprefix(f"{self._root}/")
        source = printable(name)
        locator = (os.fsencode(name),) if source != name else ()
        return Entry(source=source, split=split, label=label, reason=reason, detail=detail, locator=locator)
