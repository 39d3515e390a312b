"""One shard while it is written: the tar with its samples, and the rows of its index."""

import json
import math
from typing import IO, Any

from rhostream.loaders.decode import content_hash
from rhostream.pipeline.shards.index_rows import IndexRows, SampleFacts
from rhostream.pipeline.shards.plain_tar import PlainTar


class ShardWriter:
    """Appends samples as `<key>.<ext>`, `<key>.cls` and `<key>.json` to a tar, and their rows to `rows`.

    A multi-label sample has no `.cls`, which is one number to all who read it: its labels stand in the `.json`. A pair
    has its caption as `<key>.txt`.
    """

    def __init__(self, stream: IO[bytes], rows: IndexRows) -> None:
        self._tar = PlainTar(stream)
        self.rows = rows

    def add(self, sample: SampleFacts, stored: bytes) -> None:
        offset = self._tar.add(f"{sample.key}.{sample.ext}", stored)
        if isinstance(sample.label, int):
            self._tar.add(f"{sample.key}.cls", str(sample.label).encode())
        if sample.text is not None:
            self._tar.add(f"{sample.key}.txt", sample.text.encode())
        document = {
            "key": sample.key,
            "source": sample.source,
            **sample.label_columns,
            "split": self.rows.split,
            "fold": self.rows.fold,
        }
        document |= {column: _json_value(sample.extra.get(column)) for column in self.rows.extra_columns}
        self._tar.add(f"{sample.key}.json", json.dumps(document, ensure_ascii=False).encode())
        self.rows.add(sample, offset=offset, size=len(stored), content_hash=content_hash(stored))

    def close(self) -> int:
        """End the archive; returns its size in bytes."""
        return self._tar.close()

    @property
    def sha256(self) -> str:
        """Of the tar, when it is closed."""
        return self._tar.sha256


def _json_value(value: Any) -> Any:
    """`value` as JSON knows it: no NaN, and text for dates and the like."""
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
