"""Tars that stay where they are, local or remote."""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import braceexpand
from fsspec.utils import glob_translate

from rhostream.errors import CorpusError
from rhostream.loaders.storage import open_file, read_file, remote, with_retries
from rhostream.plain_text import with_references

_GLOB, _WEB_GLOB = re.compile(r"[*?\[]"), re.compile(r"[*\[]")
_COMPRESSED = re.compile(r"\.(tar\.(gz|bz2|xz|zst|lz4)|tgz|tbz2?|txz|tzst)$")
_LISTED_AT_ONCE = 16  # requests to a store


@dataclass(frozen=True, kw_only=True)
class TarFile:
    """A tar that stays where it is.

    Attributes:
        url: its absolute path, or its URL.
        size: bytes.
        state: changes when the file does (its time, ETag or generation).
    """

    url: str
    size: int
    state: str

    @classmethod
    def of(cls, url: str) -> Self:
        """The tar as it is now; FileNotFoundError where there is none, WorkspaceError where its store keeps failing."""
        if remote.is_remote(url):
            size, state = remote.stat(url)
            return cls(url=url, size=size, state=state)
        found = Path(url).stat()
        return cls(url=url, size=found.st_size, state=str(found.st_mtime_ns))

    def open(self) -> IO[bytes]:
        return remote.open_file(self.url) if remote.is_remote(self.url) else open_file(self.url)

    def beside(self, suffix: str) -> bytes | None:
        """The content of the file that differs in its suffix; None where there is none."""
        if "?" in self.url and remote.is_remote(self.url):  # a query signs this file alone
            return None
        url = f"{self.url.removesuffix('.tar')}{suffix}"
        try:
            return remote.read(url) if remote.is_remote(url) else read_file(url)
        except FileNotFoundError:
            return None


def list_tars(names: Sequence[str]) -> list[TarFile]:
    """Every tar that the names stand for, in the order of their URLs.

    Args:
        names: tars, folders (searched at any depth), globs and brace patterns; local paths or fsspec URLs.

    Raises:
        CorpusError: one of them stands for no tar, or for a compressed one.
    """
    urls: set[str] = set()
    for name in names:
        for pattern in braceexpand.braceexpand(name):
            found = _remote_tars(pattern) if remote.is_remote(pattern) else _local_tars(pattern)
            if not found:
                raise CorpusError(f"{pattern}: no *.tar is there; name tars, a folder with tars, a glob or {{0..9}}")
            if packed := sorted(url for url in found if _COMPRESSED.search(url)):
                raise CorpusError(
                    f"{packed[0]} ({len(packed)} such) is compressed, so that no sample can be read alone: unpack it "
                    "to a plain .tar (images gain nothing from it), or leave it out"
                )
            urls |= found
    with ThreadPoolExecutor(_LISTED_AT_ONCE) as pool:
        return list(pool.map(_stat, sorted(urls)))


def _stat(url: str) -> TarFile:
    try:
        return TarFile.of(url)
    except FileNotFoundError as error:
        raise CorpusError(f"{url}: there is no such tar; correct the path or pattern, or fetch it") from error


def _local_tars(pattern: str) -> set[str]:
    path = Path(pattern.removeprefix("file://").removeprefix("local://")).expanduser().absolute()
    if path.is_dir():
        return {os.path.normpath(name) for name in path.rglob("*") if _is_tar(name.name)}
    if not path.exists() and _GLOB.search(pattern):
        base = Path(path.anchor)
        found = base.glob(str(path.relative_to(base)))
        return {os.path.normpath(name) for name in found if _is_tar(name.name)}
    return {os.path.normpath(path)}


def _remote_tars(pattern: str) -> set[str]:
    location, path = remote.filesystem(pattern)
    web = pattern.startswith(("http://", "https://"))  # where a question mark begins a query
    if wildcard := (_WEB_GLOB if web else _GLOB).search(path):
        root, rest = path[: wildcard.start()].rpartition("/")[0], path[wildcard.start() :]
        fits = re.compile(glob_translate(path)).match
        depth = None if "**" in rest else 1 + rest.count("/")
        found = [url for url in _files(location, root, depth) if fits(url)]
    elif _is_tar(path.partition("?")[0]):
        return {pattern}
    else:
        found = list(_files(location, path, None))
    return {with_references(location.unstrip_protocol(url)) for url in found if _is_tar(url)}


def _files(location: Any, folder: str, depth: int | None) -> Iterator[str]:
    """Every file of a folder of a store; its own `find` and `glob` leave out what could not be listed just then.

    Args:
        depth: folders to go down, this one counted; None for all.
    """
    try:
        listed = with_retries(lambda: location.ls(folder, detail=True), location.unstrip_protocol(folder))
    except FileNotFoundError:
        return
    for entry in listed:
        name = entry["name"].rstrip("/")
        if entry["type"] != "directory":
            yield entry["name"]
        elif depth != 1 and name != folder.rstrip("/"):
            yield from _files(location, name, depth and depth - 1)


def _is_tar(name: str) -> bool:
    return name.endswith(".tar") or _COMPRESSED.search(name) is not None
