"""The rows of one shard's index while it is made."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rhostream.loaders.index import SHARD_DIGEST_KEY, Shard
from rhostream.pipeline.config import TaskName
from rhostream.pipeline.corpora import Label
from rhostream.plain_text import hide_secrets
from rhostream.schema import samples_of


@dataclass(frozen=True, kw_only=True)
class SampleFacts:
    """What the index says of a sample, besides where it is.

    Attributes:
        source: the source's own name of the sample.
        label: of its class, or of all its classes.
        class_name: in the same form.
        ext: of the real format, without a dot.
        measures: see `rhostream.pipeline.shards.content.Content`.
        extra: values of the corpus's extra columns.
        text: the caption of a pair, else None.
    """

    key: str
    source: str
    label: Label
    class_name: str | tuple[str, ...]
    ext: str
    measures: Mapping[str, Any]
    extra: Mapping[str, Any]
    text: str | None = None

    @property
    def label_columns(self) -> dict[str, Any]:
        """What the index, and the shard's `.json`, say of the label; nothing of pairs."""
        if self.text is not None:
            return {}
        if isinstance(self.label, int):
            return {"label": self.label, "class": self.class_name}
        return {"labels": list(self.label), "classes": list(self.class_name)}


def names_of(label: Label, classes: Sequence[str]) -> str | tuple[str, ...]:
    """The name of the class, or the names of all classes."""
    return classes[label] if isinstance(label, int) else tuple(classes[each] for each in label)


def _kept(value: Any) -> Any:
    return hide_secrets(value) if isinstance(value, str) else value


class IndexRows:
    """Collects the rows of one shard, in order.

    Args:
        task, fields: of the corpus.
        extra: types of the corpus's extra columns, in the order of the index.
        source: path or URL of the tar, where it lies outside the workspace, see `rhostream.loaders.index.Shard`.
    """

    def __init__(
        self,
        *,
        name: str,
        split: str,
        fold: int,
        task: TaskName,
        fields: Sequence[str],
        extra: Mapping[str, pa.DataType],
        source: str = "",
    ) -> None:
        self.name, self.split, self.fold, self.source = name, split, fold, source
        self.extra_columns = tuple(extra)
        self._schema = pa.schema(
            [*samples_of(fields, task), *(pa.field(column, kind) for column, kind in extra.items())]
        )
        self._columns: dict[str, list[Any]] = {column: [] for column in self._schema.names}
        self._digest = hashlib.sha256()

    def __len__(self) -> int:
        return len(self._columns["key"])

    def add(self, sample: SampleFacts, *, offset: int, size: int, content_hash: str) -> None:
        row = {
            "key": sample.key,
            "split": self.split,
            "fold": self.fold,
            "shard": self.name,
            "row": len(self),
            "offset": offset,
            "size": size,
            "ext": sample.ext,
            **sample.label_columns,
            "source": sample.source,
            "content_hash": content_hash,
            **sample.measures,
            **{column: _kept(sample.extra.get(column)) for column in self.extra_columns},
        }
        label: Any = sample.label if isinstance(sample.label, int) else list(sample.label)
        if sample.text is not None:
            label = hashlib.sha256(sample.text.encode()).hexdigest()
        self._digest.update(f"{sample.key} {label} {content_hash}\n".encode())
        for column, values in self._columns.items():
            values.append(row[column])

    def shard(self) -> Shard:
        """What `corpus.json` says of the rows so far."""
        return Shard(
            name=self.name,
            split=self.split,
            fold=self.fold,
            rows=len(self),
            digest=self._digest.hexdigest(),
            source=self.source,
        )

    def table(self) -> pa.Table:
        """The rows so far: `schema.samples_of` and the extra columns; the metadata holds the shard's digest."""
        schema = self._schema.with_metadata({SHARD_DIGEST_KEY: self._digest.hexdigest().encode()})
        return pa.table([pa.array(self._columns[field.name], field.type) for field in schema], schema=schema)
