"""Texts as a corpus holds them: UTF-8, as found."""

import hashlib
from typing import Final

from rhostream.errors import UndecodableTextError

MAX_TEXT_BYTES: Final = 1 << 20

EXCERPT: Final = 160  # characters

#: Between the two texts of a pair, which are stored as one: ASCII's record separator.
PAIR_SEPARATOR: Final = "\x1e"


def decode_text(data: bytes, *, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """The text that these bytes are, as found.

    Raises:
        UndecodableTextError: with the reason from `rhostream.schema.REJECT_REASONS`.
    """
    if len(data) > max_bytes:
        raise UndecodableTextError("too_long", f"{len(data)} bytes, at most {max_bytes} are kept")
    if b"\0" in data:
        raise UndecodableTextError("nul_bytes", f"a NUL at byte {data.index(0)}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UndecodableTextError("not_utf8", f"byte {error.start}: {error.reason}") from error
    if not text.strip():
        raise UndecodableTextError("empty", "no character but white space")
    return text


def excerpt(text: str, characters: int = EXCERPT) -> str:
    """How the text begins, on one line; of a pair both texts, with a bar between."""
    line = " ".join(text[: 8 * characters].replace(PAIR_SEPARATOR, " | ").split())
    return line if len(line) <= characters and len(text) <= 8 * characters else f"{line[: characters - 1]}…"


def normalized_hash(text: str) -> str:
    """The first 128 bits of SHA-256, in hexadecimal, of the text without regard to white space and case.

    The split follows it, so that copies which differ in these alone never straddle holdout and train.
    """
    return hashlib.sha256(" ".join(text.split()).casefold().encode()).hexdigest()[:32]
