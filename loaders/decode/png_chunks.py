"""PNG files without the chunks that Pillow finds too large, though they are valid and change no pixel."""

import struct
import zlib
from typing import Final

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt")
_LARGEST_PROFILE: Final = 32 << 20  # bytes, decompressed; the profiles of printers have a few megabytes


def without_texts(data: bytes) -> tuple[bytes, bytes | None]:
    """The file without texts and color profile, and the profile; None where there is none, or it is damaged.

    A file that is cut short stays so.
    """
    kept, profile, at = [data[: len(_SIGNATURE)]], None, len(_SIGNATURE)
    while at + 12 <= len(data):
        (size,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        end = at + 12 + size
        if kind == b"iCCP":
            profile = _profile(data[at + 8 : end - 4])
        elif kind not in _TEXTS:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]]), profile


def _profile(chunk: bytes) -> bytes | None:
    """Of an iCCP chunk: a name that a zero byte ends, the method 0, and the compressed profile."""
    _, _, rest = chunk.partition(b"\0")
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(rest[1:], _LARGEST_PROFILE)
    except zlib.error:
        return None
    return profile if inflater.eof else None
