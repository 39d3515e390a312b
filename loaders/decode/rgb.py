"""Image bytes to RGB pixels, the way a browser shows them."""

import hashlib
import io
import re
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import numpy as np
import simplejpeg
from PIL import Image, ImageCms
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from rhostream.errors import UndecodableImageError
from rhostream.loaders.decode.png_chunks import without_texts

MAX_SCANS: Final = 100  # of a JPEG; encoders write 10 or so
MAX_PIXELS = 178_956_970  # Pillow's own bound for decompression bombs, twice its warning

_PLUGINS: Final[dict[str, Callable[[io.BytesIO], ImageFile]]] = {
    "jpg": JpegImageFile,
    "png": PngImageFile,
    "webp": WebPImageFile,
    "gif": GifImageFile,
    "bmp": BmpImageFile,
    "tif": TiffImageFile,
    "avif": AvifImageFile,
    "pgm": PpmImageFile,
    "ppm": PpmImageFile,
}
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG, _SHORT = 0x0112, 3
_WEB_PAGE = re.compile(rb"<(!doctype\s+html|html|head|body|title|script|style|meta|iframe|table|div|h1|p|br|a)[\s/>]")
_BEFORE_WEB_PAGE = re.compile(rb"(?:\s|<\?xml.*?\?>|<!--.*?-->)*", re.DOTALL)
_JPEG_END, _JPEG_SCAN = b"\xff\xd9", b"\xff\xda"
_PROBE_BYTES = bytes((165 + 73 * k) % 255 for k in range(508))
_JPEG_PROBE = _PROBE_BYTES + b"".join(bytes((0xFF, 0xD0 + k)) + _PROBE_BYTES for k in range(8))


def content_hash(data: bytes) -> str:
    """The first 128 bits of SHA-256, in hexadecimal: what `samples.content_hash` holds for the stored image."""
    return hashlib.sha256(data).hexdigest()[:32]


def image_format(data: bytes) -> str | None:
    """The extension of the format that the first bytes announce ("jpg", "png", ...); None for no known image."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis", b"mif1", b"msf1"):
        return "avif"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "tif"
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in (12, 40, 52, 56, 64, 108, 124):
        return "bmp"
    if data.startswith((b"P5", b"P6")) and data[2:3].isspace():
        return "pgm" if data[1:2] == b"5" else "ppm"
    return None


def decode_rgb(
    data: bytes, *, at_least: int | None = None, max_pixels: int = MAX_PIXELS, ingest: bool = False
) -> Image.Image:
    """Decode to an RGB image, upright, in sRGB, on white where transparent; of an animation, the first frame.

    Args:
        data: a JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, binary PGM or PPM file; its name does not matter.
        at_least: a JPEG may be decoded at 1/2, 1/4 or 1/8 scale (in the DCT) as long as its shorter side stays
            at least this many pixels.
        max_pixels: refuse larger images before they are decompressed.
        ingest: refuse as well a JPEG of more than `MAX_SCANS` scans, each of which costs a pass over its pixels at
            every read, and one whose pixels end before the image does.

    Raises:
        UndecodableImageError: with the reason from `rhostream.schema.REJECT_REASONS`.
    """
    if not data:
        raise UndecodableImageError("empty", "zero bytes")
    kind = image_format(data)
    if kind is None:
        raise _not_an_image(data)
    if ingest and kind == "jpg" and (scans := data.count(_JPEG_SCAN)) > MAX_SCANS:
        raise UndecodableImageError("decompression_bomb", f"{scans} scans, at most {MAX_SCANS} are read")
    try:
        image = _load(kind, data, at_least, max_pixels)
    except UndecodableImageError as error:
        if kind != "jpg" or error.reason != "truncated":
            raise
        image = _load_without_end_marker(data, at_least, max_pixels, error)
    if ingest and kind == "jpg":
        _require_whole_jpeg(image, data)
    try:
        return _as_shown(image)
    except Exception as error:
        raise UndecodableImageError("not_an_image", f"{kind} of mode {image.mode}: {_one_line(error)}") from error


def _require_whole_jpeg(image: ImageFile, data: bytes) -> None:
    """Raises UndecodableImageError where the pixels of a JPEG end before the image does.

    The decoder fills the rest with the middle gray, and warns: where the last pixel is of that color, it is asked.
    """
    last = image.getpixel((image.width - 1, image.height - 1))
    values = last if isinstance(last, tuple) else (last,)
    if all(value is not None and abs(value - 128) <= 1 for value in values) and _ends_early(data):
        raise UndecodableImageError("truncated", f"jpg: its pixels end before its {image.width}x{image.height} do")


def _ends_early(data: bytes) -> bool:
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_width=1, min_height=1, min_factor=8, strict=True)
    except ValueError as error:
        return "premature end" in str(error).lower()
    return False


def draft_size(size: tuple[int, int], at_least: int) -> tuple[int, int]:
    """The smallest size with the aspect ratio of `size` whose shorter side is `at_least`."""
    scale = at_least / min(size)
    return (max(at_least, int(size[0] * scale)), max(at_least, int(size[1] * scale)))


def _load(kind: str, data: bytes, at_least: int | None, max_pixels: int) -> ImageFile:
    """Decompress. By the format's own plugin, as `Image.open` warns of large images at a bound of its own."""
    try:
        image = _PLUGINS[kind](io.BytesIO(data))
        if image.width * image.height > max_pixels:
            raise UndecodableImageError("decompression_bomb", f"{image.width}x{image.height} pixels")
        if at_least is not None and kind == "jpg":
            image.draft("RGB", draft_size(image.size, at_least))
        image.load()
    except UndecodableImageError:
        raise
    except Image.DecompressionBombError as error:
        raise UndecodableImageError("decompression_bomb", _one_line(error)) from error
    except Exception as error:  # codecs fail on damaged files in every way there is
        if kind == "png" and "MAX_TEXT" in str(error):
            return _load_without_texts(data, max_pixels)
        raise UndecodableImageError("truncated", f"{kind}: {_one_line(error)}") from error
    return image


def _load_without_texts(data: bytes, max_pixels: int) -> ImageFile:
    """Decompress a PNG whose texts or color profile Pillow finds too large."""
    rest, profile = without_texts(data)
    image = _load("png", rest, None, max_pixels)
    if profile is not None:
        image.info["icc_profile"] = profile
    return image


def _load_without_end_marker(
    data: bytes, at_least: int | None, max_pixels: int, original: UndecodableImageError
) -> ImageFile:
    """Decode a JPEG that lacks its end marker, if all its pixels are there; else raise `original`.

    Bytes that follow the last pixel change nothing in the picture; bytes that follow an early end do.
    """
    body = data.rstrip(b"\xff")
    try:
        image = _load("jpg", body + _JPEG_END, at_least, max_pixels)
        probe = _load("jpg", body + _JPEG_PROBE + _JPEG_END, at_least, max_pixels)
    except UndecodableImageError:
        raise original from None
    if image.tobytes() != probe.tobytes():
        raise original
    return image


def _as_shown(image: ImageFile) -> Image.Image:
    """The pixels as RGB, upright, in sRGB, on white."""
    info = image.info
    shown: Image.Image = image
    if image.mode.startswith("I;16") or (image.mode == "I" and isinstance(image, PpmImageFile)):
        shown = _gray_16_bit(image)
    elif image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no agreed black and white")
    elif image.mode in ("LA", "PA", "La") or (image.has_transparency_data and image.mode != "RGBA"):
        shown = image.convert("RGBA")
    elif image.mode in ("P", "1"):
        shown = image.convert("RGB" if image.mode == "P" else "L")
    if profile := info.get("icc_profile"):
        transform = to_srgb(profile, shown.mode)
        if transform is not None:
            shown = transform.apply(shown)
    if shown.mode == "RGBA":
        shown = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    if shown.mode != "RGB":
        shown = shown.convert("RGB")
    if "exif" in info and (turn := _UPRIGHT.get(orientation(info["exif"]))) is not None:
        shown = shown.transpose(turn)
    shown.info = {}  # no profile or orientation is left to apply a second time
    return shown


def _gray_16_bit(image: ImageFile) -> Image.Image:
    """The high bytes, as Pillow and browsers take them of 16-bit color; the one transparent gray becomes white."""
    values = np.asarray(image)
    gray = (values >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray[values == transparent] = 255
    return Image.fromarray(gray)


def orientation(exif: bytes) -> int:
    """The orientation in an EXIF block, 1 (upright) where it is absent or the block is broken.

    Read here, as Pillow's reader also believes XMP, which browsers do not, and warns of damaged blocks.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, values, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if (tag, kind, values) == (_ORIENTATION_TAG, _SHORT, 1):
                return int(value)
    except struct.error:
        pass
    return 1


@lru_cache(maxsize=64)
def to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """A transform to sRGB; None where the profile is sRGB under any name, broken, or of another color space."""
    spaces = {"RGB": "RGB", "RGBA": "RGB", "L": "GRAY", "CMYK": "CMYK"}
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != spaces.get(mode):
            return None
        target = ImageCms.createProfile("sRGB")
        output = mode if mode == "RGBA" else "RGB"
        transform = ImageCms.ImageCmsTransform(source, ImageCms.ImageCmsProfile(target), mode, output)
        if mode == "CMYK":
            return transform
        levels = np.linspace(0, 255, 6).round().astype(np.uint8)
        colors = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
        probe = Image.fromarray(colors if mode != "L" else colors[..., 0]).convert(mode)
        shift = np.asarray(transform.apply(probe).convert("RGB"), np.int16) - np.asarray(probe.convert("RGB"), np.int16)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return None if np.abs(shift).max() <= 2 else transform


def _not_an_image(data: bytes) -> UndecodableImageError:
    start = data[: 1 << 16]
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        start = start.decode("utf-16", "replace").encode()
    start = start.removeprefix(b"\xef\xbb\xbf")
    before = _BEFORE_WEB_PAGE.match(start)
    if before is not None and _WEB_PAGE.match(start[before.end() :].lower()):
        return UndecodableImageError("html", "a web page")
    return UndecodableImageError("not_an_image", f"no known image format, starts with {data[:8]!r}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
