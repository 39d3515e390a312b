"""Files and folders that a user names for a result (`--output` and its like), of every command: one guarded writer.

Nothing is lost to one: it is never written over or into what a workspace holds, and never over a file that is not known
to be an earlier result, unless that is forced; a folder that is not there is not made for a file, so that a typo makes
none. A result takes its name only when it is whole.

An earlier result is known by its content: the SHA-256 of what was written last stands in the cache folder under that of
its path. So whoever has edited it since keeps the edits.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from rhostream.errors import ConfigError
from rhostream.loaders.storage import remote
from rhostream.loaders.storage.cache_root import cache_folder
from rhostream.loaders.storage.whole_files import whole_file
from rhostream.loaders.storage.workspace import Workspace

#: Everything that the stages write at the top of a workspace.
OWNED: Final = frozenset(
    (
        "corpus.json",
        "shard_lists",
        "shards",
        "index",
        "rejects",
        "scans",
        "thumbnails",
        "il",
        "core_sets",
        "clusters",
        "runs",
        "comparisons",
    )
)
_MARK: Final = "corpus.json"  # what tells a workspace from another folder


class OutputFile:
    """A file to write as a whole.

    Args:
        name: a path, or a URL that fsspec understands.
        workspace: the one whose results these are.
        force: overwrite a file that is no earlier result.
        option: what the user knows the name as, for messages.

    Raises:
        ConfigError: it is a folder, lies in no folder that exists or among a workspace's own files, or holds something
            else. The constructor raises it, so that no work is done in vain, and so does `writing`.
    """

    def __init__(
        self, name: str, *, workspace: Workspace | str | None = None, force: bool = False, option: str = "--output"
    ) -> None:
        self.name = os.fspath(name)
        self._workspace, self._force, self._told = workspace, force, f"{option} {name}"
        self._check()

    @contextlib.contextmanager
    def writing(self) -> Iterator[IO[bytes]]:
        """A binary file to fill, which takes its name only if the block ends without an error."""
        self._check()
        if self._is_special():  # a pipe or a device: nothing that could be replaced
            with Path(self.name).open("wb") as stream:
                yield stream
            return
        path = _absolute(self.name)
        target = Path(path)
        temporary = target.with_name(f".{target.name}.rhostream.tmp")
        with contextlib.ExitStack() as stack:
            try:
                filled = stack.enter_context(whole_file(path, temporary, lambda file: _remember(path, _digest(file))))
            except OSError as error:
                raise ConfigError(f"{self._told}: {error.strerror}; name a file that can be written") from error
            yield filled

    def write(self, content: bytes) -> None:
        with self.writing() as stream:
            stream.write(content)

    def _check(self) -> None:
        folder, _, last = self.name.rpartition("/")
        path = _absolute(self.name)
        if not last or (not remote.is_remote(path) and Path(path).is_dir()):
            here = self.name.rstrip("/")
            raise ConfigError(f"{self._told} names a folder; name a file in it, such as {here}/NAME")
        if self._is_special():
            return
        refuse_owned(self._told, path, self._workspace)
        if not remote.is_remote(path) and not Path(path).parent.is_dir():
            raise ConfigError(f"{self._told}: there is no folder {folder or '.'}; name a file in one that exists")
        if not self._force and not _is_ours(path):
            forced = " or overwrite it with --force" if self._told.startswith("--output") else ""
            raise ConfigError(
                f"{self._told} is there already, and is not what was written there last: name another file{forced}"
            )

    def _is_special(self) -> bool:
        try:
            mode = Path(self.name).stat().st_mode
        except OSError:
            return False
        return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


class OutputFolder:
    """A folder to fill, by a job that goes on where a killed one has stopped.

    Its card, `export.json`, says what it is filled with.

    Args:
        name: a path, or a URL that fsspec understands. The folder is made, its parents are not.
        workspace: the one whose results these are.
        force: replace an earlier export of something else.

    Raises:
        ConfigError: its parent is not there, or it lies among a workspace's own files.
    """

    CARD: Final = "export.json"

    def __init__(self, name: str, *, workspace: Workspace | str | None = None, force: bool = False) -> None:
        self.name = os.fspath(name)
        self._told, self._force = f"--output {name}", force
        path = _absolute(self.name)
        refuse_owned(self._told, path, workspace)
        if not remote.is_remote(path):
            if Path(path).exists() and not Path(path).is_dir():
                raise ConfigError(f"{self._told} is a file: name a folder")
            if not Path(path).parent.is_dir():
                raise ConfigError(
                    f"{self._told}: there is no folder {Path(path).parent}; name a folder in one that exists"
                )

    def begin(self, content: Mapping[str, str | int], files: Sequence[str]) -> Workspace:
        """Make the folder, or go on in it; its files are then written, whole, by their names in it.

        Args:
            content: all that the files follow from.
            files: files and folders to be made directly inside; they are what a later, forced export replaces.

        Raises:
            ConfigError: it holds an export of something else, or files of someone else's.
        """
        place, card = Workspace(self.name), {**content, "files": list(files)}
        if place.exists(self.CARD):
            found = place.read_json(self.CARD)
            if found == card:
                return place
            files_found = found.get("files", ()) if isinstance(found, dict) else ()
            if not self._force:
                raise ConfigError(
                    f"{self._told} holds another export (see its {self.CARD}): name an empty folder, or replace it "
                    "with --force"
                )
            for name in place.names(""):
                if name in files_found:  # and nothing else that its card may name
                    place.remove(name)
        elif names := place.names(""):
            raise ConfigError(f"{self._told} holds {names[0]} already, which is no export: name an empty folder")
        if place.is_local:
            try:
                Path(place.root).mkdir(exist_ok=True)
            except OSError as error:
                raise ConfigError(f"{self._told}: {error.strerror}; name a folder that can be made") from error
        place.write_json(self.CARD, card)
        return place


def refuse_owned(told: str, path: str, workspace: Workspace | str | None) -> None:
    """Raises ConfigError where the absolute `path` (or URL) is, or lies in, what a workspace holds: any workspace.

    Args:
        told: what the user knows the path as.
        workspace: one that may not have its corpus yet.
    """
    named = None if workspace is None else _absolute(Workspace(workspace).root)
    parts = path.split("/")
    for number, part in enumerate(parts):
        place = "/".join(parts[:number])
        if part in OWNED and place and (place == named or Workspace(place).exists(_MARK)):
            raise ConfigError(f"{told}: workspace {place} keeps its own files there; name another path")
    if path == named:
        raise ConfigError(f"{told} is the workspace itself; name another path")


def _absolute(name: str) -> str:
    """The path without symbolic links, or the URL."""
    root = Workspace(name or ".").root
    return root if remote.is_remote(root) else str(Path(root).resolve())


def _is_ours(path: str) -> bool:
    """Is there nothing to lose: no file, an empty one, or what was written there last?"""
    place = Workspace(path)
    try:
        if place.size("") == 0:
            return True
        with place.open("") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    except FileNotFoundError:
        return True
    return digest in _remembered(path)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _record(path: str) -> Path:
    return cache_folder() / "outputs" / hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()


def _remembered(path: str) -> list[str]:
    try:
        return _record(path).read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return []


def _remember(path: str, digest: str) -> None:
    """Before the file takes its name: the digest of what it still is stays beside that of what it will be."""
    record = _record(path)
    lines = [*_remembered(path)[-7:], digest]  # some may never have taken their name
    with contextlib.suppress(OSError):  # without a cache, the next result there has to be forced
        record.parent.mkdir(parents=True, exist_ok=True)
        temporary = record.with_suffix(f".{os.getpid()}")
        temporary.write_text("\n".join(lines), encoding="ascii")
        temporary.replace(record)
