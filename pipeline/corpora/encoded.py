"""Images that a corpus holds decoded, as files."""

import io
from typing import Final

from PIL import Image

_PNG_MODES: Final = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def png_of(image: Image.Image) -> bytes:
    """A lossless PNG of the image's mode, of RGB where PNG does not know the mode."""
    buffer = io.BytesIO()
    (image if image.mode in _PNG_MODES else image.convert("RGB")).save(buffer, "PNG")
    return buffer.getvalue()
