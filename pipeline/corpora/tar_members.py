"""The members of an uncompressed tar with their byte ranges, and no damage passed over in silence."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

_BLOCK = 512


class DamagedTarError(Exception):
    """The tar cannot be read from byte `offset` on."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(f"{what} at byte {offset}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A regular file inside a tar: its name, and where its bytes begin."""

    name: str
    offset: int
    size: int


def tar_members(stream: IO[bytes]) -> Iterator[Member]:
    """Every regular file of a tar, in order; the headers alone are read.

    Raises:
        DamagedTarError: after the members before the damage, which are whole.
    """
    end = stream.seek(0, 2)
    if stream.seek(0) == 0 and stream.read(2) == b"\x1f\x8b":
        raise DamagedTarError(0, "compressed by gzip, so that no member can be read alone (gunzip it),")
    stream.seek(0)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (info := archive.next()) is not None:
                # tarfile keeps every header, which a large tar has millions of; the attribute is not in its type.
                archive.members.clear()  # type: ignore[attr-defined]
                if info.offset_data + info.size > end:
                    raise DamagedTarError(info.offset, f"the file ends inside member {info.name!r}")
                if info.isreg():
                    yield Member(name=info.name, offset=info.offset_data, size=info.size)
            offset = archive.offset
    except tarfile.TarError as error:
        raise DamagedTarError(stream.tell(), str(error)) from error
    _check_end(stream, offset)


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
