"""From a caption as a corpus holds it to its text, or the reason why there is none."""

from rhostream.errors import UndecodableTextError
from rhostream.loaders.decode import decode_text
from rhostream.pipeline.corpora.labels import without_surrogates


def parse_caption(raw: bytes | str | None, max_bytes: int) -> tuple[str | None, str, str]:
    """(text, reason, detail) of a pair's caption: the text as found, or None with the reason why it is refused.

    An empty caption is one.

    Args:
        raw: None where the sample has no caption.
        max_bytes: longer ones are refused.
    """
    if raw is None:
        return None, "caption_missing", "the image has no caption"
    data = without_surrogates(raw).encode() if isinstance(raw, str) else raw
    try:
        return decode_text(data, max_bytes=max_bytes), "", ""
    except UndecodableTextError as error:
        return (data.decode(), "", "") if error.reason == "empty" else (None, error.reason, error.detail)
