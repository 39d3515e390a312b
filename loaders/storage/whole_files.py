"""Files that take their name only when they are whole."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from rhostream.loaders.storage import remote


@contextlib.contextmanager
def whole_file(path: str, temporary: Path, prepared: Callable[[Path], None] | None = None) -> Iterator[IO[bytes]]:
    """A binary file to fill; it is synced and takes its name if the block ends without an error, and is removed else.

    Args:
        path: absolute, or a URL.
        temporary: its name until then, beside it. One name for each file: what a killed writer has left is overwritten
            by the next. A remote file is filled in a scratch file and put as a whole.
        prepared: told of the file, filled, before it takes its name.
    """
    if remote.is_remote(path):
        with tempfile.NamedTemporaryFile() as scratch:
            yield scratch
            scratch.flush()
            if prepared is not None:
                prepared(Path(scratch.name))
            remote.put(Path(scratch.name), path)
        return
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if prepared is not None:
            prepared(temporary)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)
    _sync_folder(temporary.parent)


def _sync_folder(folder: Path) -> None:
    """So that a file renamed in it has its new name after a power cut, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
