"""The members of an uncompressed tar with their byte ranges, and no damage passed over in silence."""

import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Final

_BLOCK = 512

#: First bytes of compressed files, and what unpacks them.
_COMPRESSED: Final = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}


class DamagedTarError(Exception):
    """The tar cannot be read from byte `offset` on."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(f"{what} at byte {offset}")
        self.offset = offset


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A regular file inside a tar: its name, where its bytes begin, and, where they were asked for, the bytes."""

    name: str
    offset: int
    size: int
    content: bytes | None = None


def tar_members(stream: IO[bytes], wanted: Callable[[str], int] = lambda name: 0) -> Iterator[Member]:
    """Every regular file of a tar, in order.

    Args:
        stream: seekable; it is read forward, but for single bytes.
        wanted: of a member's name: how many of its first bytes are its `content`; with 0 there is none (None), and its
            header alone is read.

    Raises:
        DamagedTarError: after the members before the damage, which are whole.
    """
    end = stream.seek(0, 2)
    stream.seek(0)
    start = stream.read(8)
    for magic, (how, tool) in _COMPRESSED.items():
        if start.startswith(magic):
            raise DamagedTarError(0, f"compressed by {how}, so that no member can be read alone ({tool} it),")
    stream.seek(0)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (info := archive.next()) is not None:
                # tarfile keeps every header, which a large tar has millions of; the attribute is not in its type.
                archive.members.clear()  # type: ignore[attr-defined]
                if info.offset_data + info.size > end:
                    raise DamagedTarError(info.offset, f"the file ends inside member {info.name!r}")
                if info.isreg():
                    content = None
                    if most := wanted(info.name):
                        stream.seek(info.offset_data)
                        content = stream.read(min(info.size, most))
                    yield Member(name=info.name, offset=info.offset_data, size=info.size, content=content)
            offset = archive.offset
    except tarfile.TarError as error:
        raise DamagedTarError(stream.tell(), str(error)) from error
    _check_end(stream, offset)


def names_behind(stream: IO[bytes], damage: DamagedTarError) -> Iterator[str]:
    """Names of the regular files whose headers can still be told behind the damage."""
    stream.seek(damage.offset // _BLOCK * _BLOCK)
    while len(block := stream.read(_BLOCK)) == _BLOCK:
        if block[257:262] == b"ustar":
            with suppress(tarfile.HeaderError):
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                if info.isreg():
                    yield info.name


def _check_end(stream: IO[bytes], offset: int) -> None:
    """Only zeros may follow the last member, and one block must: tarfile itself takes a damaged header for the end."""
    stream.seek(offset)
    rest = stream.read(_BLOCK)
    if not rest:
        raise DamagedTarError(offset, "no end mark (its writer was stopped, or the copy is cut off)")
    while rest:
        if rest.strip(b"\0"):
            raise DamagedTarError(offset, "no valid header")
        offset += len(rest)
        rest = stream.read(1 << 20)
