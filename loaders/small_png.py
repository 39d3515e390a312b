"""Small PNG files straight into arrays, where that gives the very pixels of `decode_rgb`; those alone.

Of a picture of 32 pixels Pillow spends most of its time around the decompression.
"""

import zlib
from typing import Final

import numpy as np
import numpy.typing as npt
import pyspng

Pixels = npt.NDArray[np.uint8]

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
#: The library holds Python's lock while it works: a tenth of a millisecond for so many.
_MAX_PIXELS: Final = 1 << 14
#: Depth 8, grey or RGB, the only compression and filter method, not interlaced.
_PLAIN: Final = frozenset((b"\x08\x00\x00\x00\x00", b"\x08\x02\x00\x00\x00"))
#: Ancillary chunks that `decode_rgb` does not heed. Texts are not among them: their keywords may be anything.
_WITHOUT_EFFECT: Final = frozenset((b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"pHYs", b"bKGD", b"tIME"))


def small_png(data: bytes) -> Pixels | None:
    """The pixels of a plain PNG, equal to those of `decode_rgb(data)`.

    Returns:
        uint8 (height, width, 3), or (height, width, 1) of a grey one; None for all other files, large and damaged ones
        among them: `decode_rgb` knows what to make of those.
    """
    if not data.startswith(_SIGNATURE) or not _is_plain(data):
        return None
    try:
        pixels: Pixels = pyspng.load(data, "L" if data[25] == 0 else "RGB")
    except RuntimeError:
        return None
    return pixels.reshape(*pixels.shape[:2], -1)


def _is_plain(data: bytes) -> bool:
    """Is it a small, whole file of chunks that are what their check sums say, its pixels what a browser shows?"""
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if not 0 < width * height <= _MAX_PIXELS or data[24:29] not in _PLAIN:
        return False
    at, kind, before = 8, b"", b""
    while kind != b"IEND":
        end = at + 8 + int.from_bytes(data[at : at + 4])
        kind = data[at + 4 : at + 8]
        if end + 4 > len(data) or zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4]):
            return False
        if kind == b"IHDR":
            expected = at == 8 and end == 29
        elif kind == b"IDAT":
            expected = True
        elif kind == b"IEND":
            expected = before == b"IDAT"
        else:
            expected = before != b"IDAT" and kind in _WITHOUT_EFFECT
        if not expected:
            return False
        at, before = end + 4, kind
    return data[12:16] == b"IHDR"
