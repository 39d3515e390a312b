"""What an entry holds, looked through before it is stored: an image or a text."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from PIL import Image

from rhostream.loaders.decode import decode_rgb, decode_text, excerpt, image_format, normalized_hash
from rhostream.pipeline.config import Manifest
from rhostream.plain_text import hide_secrets

JPEG_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class Content:
    """A field of a sample, found to be good.

    Attributes:
        stored: the bytes that a shard holds.
        ext: of its real format, without a dot.
        measures: what the index says of it: `width` and `height` in pixels, or the columns `rhostream.schema.TEXT`.
        identity: what the split follows; of a pair see `rhostream.pipeline.shards.captions.pair_identity`.
    """

    stored: bytes
    ext: str
    measures: dict[str, Any]
    identity: bytes


def content_of(field: str, found: bytes, manifest: Manifest) -> Content:
    """Look through what was found.

    Args:
        field: "image" or "text".

    Raises:
        UndecodableError: it is no such field, with the reason.
    """
    return _LOOKED_THROUGH[field](found, manifest)


def with_caption(image: Content, text: str) -> Content:
    """The content of a pair."""
    return replace(image, measures={**image.measures, "text": text, "text_hash": normalized_hash(text)})


def _image(found: bytes, manifest: Manifest) -> Content:
    image = decode_rgb(found, max_pixels=manifest.max_pixels, ingest=True)
    ext = image_format(found) or ""
    stored = found
    if 0 < manifest.max_side < max(image.size):
        image, stored, ext = _smaller(image, manifest.max_side, lossless=ext not in ("jpg", "webp", "avif"))
    measures = {"width": image.width, "height": image.height}
    return Content(stored=stored, ext=ext, measures=measures, identity=hashlib.sha256(found).digest())


def _text(found: bytes, manifest: Manifest) -> Content:
    text = decode_text(found, max_bytes=manifest.max_text_bytes)
    identity = normalized_hash(text)
    shown = hide_secrets(excerpt(text))
    measures = {"characters": len(text), "excerpt": shown, "normalized_hash": identity}
    return Content(stored=found, ext="txt", measures=measures, identity=bytes.fromhex(identity))


_LOOKED_THROUGH: Final[dict[str, Callable[[bytes, Manifest], Content]]] = {"image": _image, "text": _text}


def _smaller(image: Image.Image, max_side: int, *, lossless: bool) -> tuple[Image.Image, bytes, str]:
    """(image, file, extension) with the longer side `max_side`."""
    scale = max_side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    if lossless:
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return image, buffer.getvalue(), "png" if lossless else "jpg"
