"""Folders of images: `<class>/**/<file>` or `<split>/<class>/**/<file>`, as torchvision's ImageFolder reads them."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from rhostream.errors import ConfigError, CorpusError
from rhostream.loaders.storage import read_file
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.corpora.labels import LabelParser, label_text
from rhostream.pipeline.corpora.paths import corpus_root
from rhostream.pipeline.corpora.splits import checked_splits, official_split

#: File name extensions by which a file that lies in no class folder is still taken for an image.
IMAGE_EXTENSIONS: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})

_CLUTTER: Final = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


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
        self._splits = self._split_folders(checked_splits(options.splits, "[options] splits"))
        folders = sorted({folder.name for top, _ in self._splits for folder in _visible(top) if _is_folder(folder)})
        if not folders:
            raise CorpusError(
                f"{self._root} has no class folders: imagefolder reads <class>/<file> or "
                "<split>/<class>/<file>; for files with a list of labels use format table"
            )
        self.classes = manifest.classes or tuple(label_text(_printable(folder)) or folder for folder in folders)

    def entries(self) -> Iterator[Entry]:
        parser = LabelParser(self.classes)
        for top, split in self._splits:
            above = (_identity(str(self._root)), _identity(top))
            for child in _visible(top):
                if _is_folder(child):
                    label, reason, detail = parser.parse(_printable(child.name))
                    for path in _files(child.path, above):
                        yield self._entry(path, split, label, reason, detail)
                elif Path(child.name).suffix.lower() in IMAGE_EXTENSIONS:
                    yield self._entry(child.path, split, None, "label_missing", "in no class folder")

    def read(self, entry: Entry) -> bytes:
        name = os.fsdecode(entry.locator[0]) if entry.locator else entry.source
        return read_file(self._root / name)

    def _entry(self, path: str, split: str | None, label: int | None, reason: str, detail: str) -> Entry:
        name = path.removeprefix(f"{self._root}/")
        source = _printable(name)
        locator = (os.fsencode(name),) if source != name else ()
        return Entry(source=source, split=split, label=label, reason=reason, detail=detail, locator=locator)

    def _split_folders(self, named: Mapping[str, str]) -> list[tuple[str, str | None]]:
        """The folders that hold class folders, each with its official split."""
        tops = [child for child in _visible(self._root) if _is_folder(child)]
        if not named:
            found = [(top.path, official_split(top.name)) for top in tops]
            return found if found and all(split for _, split in found) else [(str(self._root), None)]
        names = {top.name for top in tops}
        if names != set(named):
            raise ConfigError(
                f"{self._root} has the folders {', '.join(sorted(names)) or 'none'}, and [options] splits "
                f"names {', '.join(sorted(named))}: give every folder its split, and no other"
            )
        return [(top.path, named[top.name]) for top in tops]


def _visible(folder: str | Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name, without hidden files and clutter."""
    with os.scandir(folder) as children:
        shown = [child for child in children if not child.name.startswith(".") and child.name.lower() not in _CLUTTER]
    return sorted(shown, key=lambda child: child.name)


def _files(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Every file below a folder, and every link to nothing; a folder that is one of those `above` is not entered."""
    identity = _identity(folder)
    if identity in above:
        return
    for child in _visible(folder):
        if _is_folder(child):
            yield from _files(child.path, (*above, identity))
        elif child.is_symlink() or child.is_file():
            yield child.path


def _is_folder(child: os.DirEntry[str]) -> bool:
    try:
        return child.is_dir()
    except OSError:  # a link to itself, or into a folder that we may not enter
        return False


def _identity(folder: str) -> tuple[int, int]:
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
