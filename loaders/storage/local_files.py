"""Local files, to be read: a folder, a pipe or a device in the place of one is refused, and not waited for."""

import errno
import os
import stat
from typing import IO, Final

from rhostream.loaders.storage.unreadable import UnreadableError

_KINDS: Final = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
_REMEDIES: Final = {
    errno.EACCES: "give this user access to it",
    errno.EPERM: "give this user access to it",
    errno.EMFILE: "allow this process more open files (`ulimit -n`)",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ELOOP: "correct the symbolic links",
}


def open_file(path: str | os.PathLike[str], *, buffered: bool = True) -> IO[bytes]:
    """A regular file, open for reading.

    Raises:
        FileNotFoundError: there is none.
        UnreadableError: it is something else, or cannot be opened.
    """
    try:
        # Not to wait for whoever may write into a pipe; a regular file knows no waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path)) from error
    except (OSError, ValueError) as error:
        raise unreadable(error) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = next((name for is_of, name in _KINDS if is_of(mode)), "a device")
        raise UnreadableError(f"is {kind}, not a file")
    return open(descriptor, "rb", -1 if buffered else 0)  # noqa: PTH123 - the caller closes it


def read_file(path: str | os.PathLike[str]) -> bytes:
    """All that a regular file holds; raises as `open_file` does."""
    with open_file(path, buffered=False) as stream:
        try:
            return stream.read()
        except (OSError, MemoryError) as error:
            raise unreadable(error) from error


def unreadable(error: Exception) -> UnreadableError:
    """What the operating system says of a file that cannot be read."""
    number = error.errno if isinstance(error, OSError) else None
    told = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return UnreadableError(f"cannot be read ({told})", remedy=_REMEDIES.get(number or 0, ""))
