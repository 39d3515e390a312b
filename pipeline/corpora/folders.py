"""Folders of a corpus: those of its splits, and the files below them."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from rhostream.errors import ConfigError
from rhostream.pipeline.corpora.splits import official_split

#: File name extensions by which a file that no list names is still taken for an image.
IMAGE_EXTENSIONS: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})

_CLUTTER: Final = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


def split_folders(root: Path, named: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """The folders of the splits, each with what it is: those that are `named`, else the top folders where every one of
    them is called like a split, else the root itself.

    Raises:
        ConfigError: a folder that is not named, or a name that is no folder.
    """
    tops = [child for child in visible(root) if is_folder(child)]
    if not named:
        found = [(top.path, official_split(top.name)) for top in tops]
        return found if found and all(split for _, split in found) else [(str(root), None)]
    names = {top.name for top in tops}
    if names != set(named):
        raise ConfigError(
            f"{root} has the folders {', '.join(sorted(names)) or 'none'}, and [options] splits "
            f"names {', '.join(sorted(named))}: give every folder its split, and no other"
        )
    return [(top.path, named[top.name]) for top in tops]


def visible(folder: str | Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name, without hidden files and clutter."""
    with os.scandir(folder) as children:
        shown = [child for child in children if not child.name.startswith(".") and child.name.lower() not in _CLUTTER]
    return sorted(shown, key=lambda child: child.name)


def files_below(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Every file below a folder, and every link to nothing; a folder that is one of those `above` is not entered."""
    here = identity(folder)
    if here in above:
        return
    for child in visible(folder):
        if is_folder(child):
            yield from files_below(child.path, (*above, here))
        elif child.is_symlink() or child.is_file():
            yield child.path


def is_folder(child: os.DirEntry[str]) -> bool:
    try:
        return child.is_dir()
    except OSError:  # a link to itself, or into a folder that we may not enter
        return False


def identity(folder: str) -> tuple[int, int]:
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
