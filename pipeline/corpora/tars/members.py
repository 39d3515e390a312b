"""The members of an uncompressed tar with their byte ranges: every byte is a member's, or counted as damage."""

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Final

_BLOCK: Final = 512
_CHUNK: Final = 1 << 20  # bytes searched at once
_MAGIC_AT: Final = 257  # where a header has its magic
_MAGIC: Final = re.compile(rb"ustar(?:\x0000|  \x00)")  # of POSIX and of GNU

#: Headers that say more of the member behind them: pax records, long names and long link targets.
_EXTENSIONS: Final = frozenset(
    (
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    )
)
_MOST_EXTENSIONS: Final = 16  # of one member
_MOST_EXTENSION_BYTES: Final = 1 << 20  # of one such header

#: First bytes of compressed files, and what unpacks them.
_COMPRESSED: Final = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}


class DamagedTarError(Exception):
    """The tar cannot be read at byte `offset`."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """Bytes of a tar that belong to no member that can be told, and why."""

    offset: int
    size: int
    cause: str


def tar_members(
    stream: IO[bytes], wanted: Callable[[str], int] = lambda name: 0, *, skip_damage: bool = False
) -> Iterator[Member | Damage]:
    """Every regular file of a tar, in order. The work is bounded by the tar's bytes, whatever its headers claim.

    Args:
        stream: seekable; without damage it is read forward.
        wanted: of a member's name: how many of its first bytes are its `content`; with 0 there is none (None), and its
            header alone is read.
        skip_damage: go on at the next valid header, at whichever byte it begins, and give a `Damage` for what lies
            between.

    Raises:
        DamagedTarError: without `skip_damage`, after the members before the damage, which are whole.
    """
    end = stream.seek(0, io.SEEK_END)
    at, shared = 0, b""
    while True:
        try:
            if at == 0:
                _refuse_compressed(stream)
            found = _next_member(stream, at, end, shared)
        except DamagedTarError as error:
            if not skip_damage:
                raise
            resumed = _next_header(stream, at + 1, end)
            yield Damage(offset=at, size=resumed - at, cause=str(error))
            if resumed == end:
                return
            at = resumed
            continue
        if found is None:
            return
        info, at, shared = found
        if info.isreg():
            content = None
            if most := wanted(info.name):
                stream.seek(info.offset_data)
                content = stream.read(min(info.size, most))
            yield Member(name=info.name, offset=info.offset_data, size=info.size, content=content)


def _refuse_compressed(stream: IO[bytes]) -> None:
    stream.seek(0)
    start = stream.read(8)
    for magic, (how, tool) in _COMPRESSED.items():
        if start.startswith(magic):
            raise DamagedTarError(0, f"compressed by {how}, so that no member can be read alone ({tool} it),")


def _next_member(stream: IO[bytes], at: int, end: int, shared: bytes) -> tuple[tarfile.TarInfo, int, bytes] | None:
    """The member whose headers begin at byte `at`, where the next one begins, and the global pax headers so far.

    None at the archive's end. Blocks are read here, one at a time, so that no header can make `tarfile` allocate, loop
    or recurse by what it claims; what the headers of a member say together is then `tarfile`'s to tell.
    """
    headers, position, records = b"", at, False
    for _ in range(_MOST_EXTENSIONS + 1):
        block = _header(stream, position, ends=not headers)
        if not block:
            return None
        info = _parsed(block, position)
        data = position + _BLOCK
        if info.type not in _EXTENSIONS:
            if shared or headers:
                info = _merged(shared + headers + block, position, records)
            info.offset_data = data
            if info.size < 0:
                raise DamagedTarError(position, f"a member of {info.size} bytes")
            if info.issparse() or info.type == tarfile.GNUTYPE_SPARSE:
                raise DamagedTarError(position, f"member {info.name!r} is sparse: its bytes do not lie together")
            filled = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
            if filled and data + info.size > end:
                raise DamagedTarError(at, f"the file ends inside member {info.name!r}")
            return info, data + (_padded(info.size) if filled else 0), shared
        if not 0 <= info.size <= min(_MOST_EXTENSION_BYTES, end - data):
            raise DamagedTarError(position, f"a header of {info.size} more bytes")
        records |= info.size > 0 and info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
        extension = block + stream.read(_padded(info.size))
        if info.type != tarfile.XGLTYPE:
            headers += extension
        elif len(shared := shared + extension) > _MOST_EXTENSION_BYTES:
            raise DamagedTarError(position, f"more than {_MOST_EXTENSION_BYTES} bytes of global headers")
        position = data + _padded(info.size)
    raise DamagedTarError(at, f"more than {_MOST_EXTENSIONS} extended headers of one member")


def _header(stream: IO[bytes], position: int, *, ends: bool) -> bytes:
    """The block at this byte; empty at the archive's end, which must be marked and may come where `ends` says so."""
    stream.seek(position)
    block = stream.read(_BLOCK)
    if not block:
        raise DamagedTarError(position, "no end mark (its writer was stopped, or the copy is cut off)")
    if len(block) < _BLOCK:
        raise DamagedTarError(position, "the file ends inside a header")
    if not ends or block.strip(b"\0"):
        return block
    while rest := stream.read(_CHUNK):
        position += len(block)
        if rest.strip(b"\0"):
            raise DamagedTarError(position, "no valid header")
        block = rest
    return b""


def _parsed(block: bytes, position: int) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError) as error:
        raise DamagedTarError(position, "no valid header") from error


def _merged(headers: bytes, position: int, records: bool) -> tarfile.TarInfo:
    """What the extended headers of a member (pax `records` among them) and its own say together."""
    try:
        with tarfile.open(fileobj=io.BytesIO(headers), mode="r:", errors="surrogateescape") as archive:
            info = archive.next()
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise DamagedTarError(position, f"extended headers that say nothing ({error})") from error
    if info is None:
        raise DamagedTarError(position, "extended headers of no member")
    # Python 3.11 passes over records that it cannot read, and takes a size that is no number for 0.
    if records and (not info.pax_headers or not info.pax_headers.get("size", "0").isdecimal()):
        raise DamagedTarError(position, "pax records that say nothing")
    return info


def _next_header(stream: IO[bytes], start: int, end: int) -> int:
    """Where the next header with a valid check sum begins, at or behind byte `start`; `end` where there is none."""
    while start < end:
        stream.seek(start)
        chunk = stream.read(_CHUNK + _BLOCK)
        for magic in _MAGIC.finditer(chunk, _MAGIC_AT):
            at = magic.start() - _MAGIC_AT
            with suppress(DamagedTarError):
                _parsed(chunk[at : at + _BLOCK], start + at)
                return start + at
        start += max(_BLOCK, len(chunk) - _BLOCK + 1)
    return end


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
