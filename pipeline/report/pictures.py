"""What a page shows of samples: small pictures as `data:` URIs, or how texts begin."""

import base64
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image

from rhostream.errors import ShardError, UndecodableError
from rhostream.loaders.decode import content_hash, decode_rgb, decode_text, excerpt
from rhostream.loaders.index import Shard
from rhostream.loaders.storage import ShardReader, Workspace
from rhostream.plain_text import hide_secrets

SIDE: Final = 256  # pixels of the longer side, at most: a card shows it smaller
QUALITY: Final = 70  # of WebP: 5 to 12 kB a photograph
CHARACTERS: Final = 280  # of a text, at most
_THREADS: Final = 4  # remote images are waited for; each holds a full-size image that is not a JPEG


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A picture of at most `SIDE` pixels a side, or the beginning of a text.

    Attributes:
        uri: a `data:` URI; "" where there is none to show.
        text: "" where there is none to show.
        width, height: pixels.
        problem: why the sample cannot be shown, else "".
    """

    uri: str = ""
    text: str = ""
    width: int = SIDE
    height: int = SIDE
    problem: str = ""


def thumbnails(
    workspace: Workspace, shards: Mapping[str, Shard], samples: Sequence[Mapping[str, Any]], field: str
) -> dict[str, Thumbnail]:
    """Thumbnails by key. A sample that cannot be read or is not the one that was indexed has its problem told.

    Args:
        field: "image" or "text".
        shards: by name.
        samples: with key, shard, offset, size and content_hash, as in `rhostream.schema.SAMPLES`; each is read by
            itself, out of its tar, wherever that lies.
    """
    wanted = {sample["key"]: sample for sample in samples}
    # In the order of the tars, so that each is opened once.
    in_order = sorted(wanted.values(), key=lambda sample: (sample["shard"], sample["offset"]))
    reader = ShardReader(workspace)
    with ThreadPoolExecutor(_THREADS) as pool:
        made = pool.map(lambda sample: _thumbnail(reader, shards.get(sample["shard"]), sample, field), in_order)
        return {sample["key"]: thumbnail for sample, thumbnail in zip(in_order, made, strict=True)}


def _thumbnail(reader: ShardReader, shard: Shard | None, sample: Mapping[str, Any], field: str) -> Thumbnail:
    if shard is None:
        return Thumbnail(problem=f"shard {sample['shard']} is not in corpus.json")
    try:
        data = reader.read(shard.tar, sample["offset"], sample["size"], whole=False)
        if content_hash(data) != sample["content_hash"]:
            return Thumbnail(problem="the tar has changed since it was indexed")
        if field == "text":
            return Thumbnail(text=hide_secrets(excerpt(decode_text(data, max_bytes=len(data)), CHARACTERS)))
        image = decode_rgb(data, at_least=SIDE)
    except (ShardError, UndecodableError) as error:
        return Thumbnail(problem=" ".join(str(error).split()))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=4)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Thumbnail(uri=f"data:image/webp;base64,{encoded}", width=image.width, height=image.height)
