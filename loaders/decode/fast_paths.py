"""JPEG, PGM, PPM and small PNG files straight into arrays, where that gives the very pixels of `decode_rgb`."""

import re
import threading
import zlib
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pyspng
import simplejpeg

from rhostream.loaders.decode.rgb import draft_size, orientation, to_srgb

Pixels = npt.NDArray[np.uint8]

_RAW: Final = re.compile(rb"P([56])\s(\d{1,5})\s(\d{1,5})\s255\s")
_MAX_PIXELS: Final = 1 << 26  # beyond, memory matters more than time

_START_OF_SCAN: Final = 0xDA
_FRAMES: Final = frozenset((0xC0, 0xC1, 0xC2))  # baseline, extended and progressive, all of them Huffman-coded
_JFIF, _EXIF, _ICC, _ADOBE = 0xE0, 0xE1, 0xE2, 0xEE
_YCBCR: Final = 1  # Adobe's transform flag
# Tables, restart interval, comment, and the application's segments except Adobe's; EXIF and ICC are looked into first.
_WITHOUT_EFFECT: Final = frozenset((0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xEE), 0xEF))

_scratch = threading.local()


def fast_rgb(data: bytes, at_least: int, into: Pixels | None = None) -> Pixels | None:
    """The pixels of a plain JPEG, small PNG or 8-bit binary PGM or PPM, equal to those of `decode_rgb`.

    Args:
        at_least: as of `decode_rgb`.
        into: uint8 (height, width, channels), contiguous, filled and returned where the pixels of a JPEG, PGM or PPM
            have exactly this shape.

    Returns:
        uint8 (height, width, 3), or (height, width, 1) of a PGM or gray PNG, valid until this thread's next call; None
        for all other files, damaged ones among them: `decode_rgb` knows what to make of those.
    """
    if data.startswith(b"\xff\xd8\xff"):
        frame = plain_jpeg(data)
        return None if frame is None else _jpeg(data, frame, at_least, into)
    return small_png(data) if data.startswith(_SIGNATURE) else _raw(data, into)


def _raw(data: bytes, into: Pixels | None) -> Pixels | None:
    if into is not None:
        height, width, channels = into.shape
        ours = raw_header(width, height, channels)
        if data.startswith(ours) and len(data) == len(ours) + into.size:
            # NumPy's copy of a small picture takes twice as long.
            into.data.cast("B")[:] = memoryview(data)[len(ours) :]
            return into
    header = _RAW.match(data)
    if header is None:
        return None
    channels, width, height, start = 1 if header[1] == b"5" else 3, int(header[2]), int(header[3]), header.end()
    count = channels * width * height
    if len(data) < start + count or not count:
        return None
    pixels = np.frombuffer(data, np.uint8, count, start).reshape(height, width, channels)
    if into is None or into.shape != pixels.shape:
        return pixels
    into[...] = pixels
    return into


@lru_cache
def raw_header(width: int, height: int, channels: int) -> bytes:
    """What a raw thumbnail begins with: a PGM of one channel, a PPM of three."""
    return b"P%d\n%d %d\n255\n" % (5 if channels == 1 else 6, width, height)


def _jpeg(data: bytes, frame: tuple[int, int], at_least: int, into: Pixels | None) -> Pixels | None:
    width, height = frame
    scale = _scale(frame, at_least)
    shape = (-(-height // scale), -(-width // scale), 3)
    if into is None or into.shape != shape:
        into = _scratch_of(shape)
    smallest = (shape[0], shape[1]) if scale > 1 else (0, 0)
    try:
        # Not the fast DCT and upsampling, which give other pixels. Strict: libjpeg's warnings are left to `decode_rgb`.
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=smallest[0], min_width=smallest[1], buffer=into)
    except ValueError:
        return None
    return into if pixels.shape == shape else None


def _scale(size: tuple[int, int], at_least: int) -> int:
    """By how much Pillow scales a JPEG down in the DCT, when asked for `draft_size`."""
    if min(size) < 2 * at_least:
        return 1
    wanted = draft_size(size, at_least)
    possible = min(size[0] // wanted[0], size[1] // wanted[1])
    return next((scale for scale in (8, 4, 2) if possible >= scale), 1)


def _scratch_of(shape: tuple[int, int, int]) -> Pixels:
    """This thread's, as fresh memory costs page faults."""
    count = shape[0] * shape[1] * shape[2]
    scratch: Pixels | None = getattr(_scratch, "pixels", None)
    if scratch is None or len(scratch) < count:
        scratch = _scratch.pixels = np.empty(count, np.uint8)
    return scratch[:count].reshape(shape)


def plain_jpeg(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG whose samples are what a browser shows; None where it may not be one.

    That is: 8-bit gray or YCbCr, Huffman-coded, stored upright, in sRGB. Only the segments before the first scan are
    looked at.
    """
    at, size, components = 2, None, 0
    profile, exif_seen = b"", False
    try:
        while data[at] == 0xFF:
            marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
            end = at + 2 + length
            if marker == _START_OF_SCAN:
                return size if not profile or to_srgb(profile, "RGB" if components == 3 else "L") is None else None
            if marker in _FRAMES:
                components = data[at + 9]
                if size or data[at + 4] != 8 or components not in (1, 3) or length != 8 + 3 * components:
                    return None
                height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
                # Smaller ones could be scaled by several factors to one size.
                if max(width, height) < 8 or not 0 < width * height <= _MAX_PIXELS:
                    return None
                size = (width, height)
            elif marker == _EXIF and data.startswith(b"Exif\0\0", at + 4):
                if exif_seen or orientation(data[at + 4 : end]) in range(2, 9):
                    return None
                exif_seen = True
            elif marker == _ICC and data.startswith(b"ICC_PROFILE\0", at + 4):
                if profile or not data.startswith(b"\1\1", at + 16):  # in several segments, or twice
                    return None
                profile = data[at + 18 : end]
            elif marker == _ADOBE:
                if length != 14 or not data.startswith(b"Adobe", at + 4) or data[at + 15] != _YCBCR:
                    return None
            elif marker not in _WITHOUT_EFFECT or length < (14 if marker == _JFIF else 2):
                return None
            at = end
    except IndexError:
        pass
    return None


_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
#: The library holds Python's lock while it works: a tenth of a millisecond for so many.
_MAX_PNG_PIXELS: Final = 1 << 14
#: Depth 8, gray or RGB, the only compression and filter method, not interlaced.
_PLAIN: Final = frozenset((b"\x08\x00\x00\x00\x00", b"\x08\x02\x00\x00\x00"))
#: Ancillary chunks that `decode_rgb` does not heed. Texts are not among them: their keywords may be anything.
_CHUNKS_WITHOUT_EFFECT: Final = frozenset((b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"pHYs", b"bKGD", b"tIME"))


def small_png(data: bytes) -> Pixels | None:
    """The pixels of a plain PNG, equal to those of `decode_rgb(data)`.

    Returns:
        uint8 (height, width, 3), or (height, width, 1) of a gray one; None for all other files, large and damaged ones
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
    if not 0 < width * height <= _MAX_PNG_PIXELS or data[24:29] not in _PLAIN:
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
            expected = before != b"IDAT" and kind in _CHUNKS_WITHOUT_EFFECT
        if not expected:
            return False
        at, before = end + 4, kind
    return data[12:16] == b"IHDR"
