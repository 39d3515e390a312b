"""One shard while it is written: the tar with its samples, and the rows of its index."""

import hashlib
import json
import math
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa

from rhostream.loaders.decode import content_hash
from rhostream.schema import SAMPLES


@dataclass(frozen=True, kw_only=True)
class StoredSample:
    """What is stored of one entry.

    Attributes:
        image: the image file; `ext` is of its real format, without a dot.
        width, height: pixels, as shown.
        extra: values of the corpus's extra columns.
    """

    key: str
    source: str
    image: bytes
    ext: str
    label: int
    class_name: str
    width: int
    height: int
    extra: Mapping[str, Any]


class ShardWriter:
    """Appends samples as `<key>.<ext>`, `<key>.cls` and `<key>.json` to a plain ustar archive without times or owners.

    Args:
        extra: types of the corpus's extra columns, in the order of the index.
    """

    def __init__(self, stream: IO[bytes], *, name: str, split: str, fold: int, extra: Mapping[str, pa.DataType]):
        self._stream, self._written = stream, 0
        self.name, self.split, self.fold = name, split, fold
        self._schema = pa.schema([*SAMPLES, *(pa.field(column, kind) for column, kind in extra.items())])
        self._columns: dict[str, list[Any]] = {column: [] for column in self._schema.names}
        self._digest = hashlib.sha256()

    def __len__(self) -> int:
        return len(self._columns["key"])

    def add(self, sample: StoredSample) -> None:
        described = {"key": sample.key, "source": sample.source, "label": sample.label, "class": sample.class_name,
                     "split": self.split, "fold": self.fold}  # fmt: skip
        extra = {column: sample.extra.get(column) for column in self._schema.names[len(SAMPLES) :]}
        offset = self._member(f"{sample.key}.{sample.ext}", sample.image)
        self._member(f"{sample.key}.cls", str(sample.label).encode())
        document = {**described, **{column: _json_value(value) for column, value in extra.items()}}
        self._member(f"{sample.key}.json", json.dumps(document, ensure_ascii=False).encode())
        row = {
            **described,
            **extra,
            "shard": self.name,
            "row": len(self),
            "offset": offset,
            "size": len(sample.image),
            "ext": sample.ext,
            "content_hash": content_hash(sample.image),
            "width": sample.width,
            "height": sample.height,
        }
        self._digest.update(f"{sample.key} {sample.label} {row['content_hash']}\n".encode())
        for column, values in self._columns.items():
            values.append(row[column])

    def close(self) -> int:
        """End the archive; returns its size in bytes."""
        end = 2 * tarfile.BLOCKSIZE
        end += -(self._written + end) % tarfile.RECORDSIZE
        self._write(bytes(end))
        return self._written

    @property
    def digest(self) -> str:
        """Of keys, labels and contents, in order."""
        return self._digest.hexdigest()

    def index(self) -> pa.Table:
        """The rows so far: `rhostream.schema.SAMPLES` and the extra columns."""
        return pa.table(
            [pa.array(self._columns[field.name], field.type) for field in self._schema], schema=self._schema
        )

    def _member(self, name: str, content: bytes) -> int:
        """Append a file; returns the offset of its first byte."""
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o644
        self._write(member.tobuf(tarfile.USTAR_FORMAT))
        offset = self._written
        self._write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
        return offset

    def _write(self, content: bytes) -> None:
        self._stream.write(content)
        self._written += len(content)


def _json_value(value: Any) -> Any:
    """`value` as JSON knows it: no NaN, and text for dates and the like."""
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
