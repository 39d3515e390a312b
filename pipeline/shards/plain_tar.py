"""A tar of plain files without times or owners: the same members give the same bytes."""

import hashlib
import tarfile
from typing import IO


class PlainTar:
    """Appends members to a stream and says where each one lies, so that an index can point into the tar."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._written, self._digest = stream, 0, hashlib.sha256()

    def add(self, name: str, content: bytes) -> int:
        """Append a file; returns the offset of its first byte."""
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o644
        # Ustar, but for names that are too long for it or not ASCII.
        self._write(member.tobuf(tarfile.PAX_FORMAT))
        offset = self._written
        self._write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
        return offset

    def close(self) -> int:
        """End the archive; returns its size in bytes."""
        end = 2 * tarfile.BLOCKSIZE
        end += -(self._written + end) % tarfile.RECORDSIZE
        self._write(bytes(end))
        return self._written

    @property
    def sha256(self) -> str:
        """Of all that was written so far."""
        return self._digest.hexdigest()

    def _write(self, content: bytes) -> None:
        self._stream.write(content)
        self._written += len(content)
        self._digest.update(content)
