"""The one record in which a row travels, from the index joined with the IL table to the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rhostream.loaders.decode import Positions, StoredRefs, take_texts
from rhostream.loaders.index import Labels, concat_labels, take_labels, take_lists

#: Columns of a reference table of pairs, among the extra ones of candidates that are read.
EMBEDDINGS: Final = ("image_embedding", "text_embedding")


@dataclass(frozen=True, kw_only=True)
class CandidateTable:
    """n candidates, in columns of length n.

    Attributes:
        keys: names; an Arrow array in a block of the index, else a list.
        shards: name of the shard of each.
        rows: int32, position in the shard.
        labels: int32; of a multi-label corpus lists of int32.
        il: float32, irreducible losses in nats; None where the stream joins no IL table.
        extra: further columns of the index.
        reasons: why each is not read (one of `rhostream.schema.UNSCORED_REASONS`), "" for one that is read; None where
            all are.
        refs: where the stored bytes lie that are still to be read: of the "thumbnail" where there are thumbnails, and
            of the "image" or "text".
        texts: the raw texts, where such were read, and the captions of pairs; else None.
        tokens: ids of each text, lists of int32, where they are stored beside the shards; else None.
    """

    keys: Sequence[str]
    shards: Sequence[str]
    rows: npt.NDArray[np.int32]
    labels: Labels
    il: npt.NDArray[np.float32] | None
    extra: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    reasons: npt.NDArray[np.object_] | None = None
    refs: dict[str, StoredRefs] = field(default_factory=dict)
    texts: Sequence[str] | None = None
    tokens: pa.ListArray | None = None

    @property
    def multi_label(self) -> bool:
        """Has each candidate a list of labels?"""
        return not isinstance(self.labels, np.ndarray)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: Positions) -> Self:
        """The candidates at these positions, in this order."""
        return type(self)(
            keys=take_texts(self.keys, positions),
            shards=take_texts(self.shards, positions),
            rows=self.rows[positions],
            labels=take_labels(self.labels, positions),
            il=None if self.il is None else self.il[positions],
            extra={name: column[positions] for name, column in self.extra.items()},
            reasons=None if self.reasons is None else self.reasons[positions],
            refs={name: refs.take(positions) for name, refs in self.refs.items()},
            texts=None if self.texts is None else take_texts(self.texts, positions),
            tokens=None if self.tokens is None else take_lists(self.tokens, positions),
        )

    def passed_over(self, positions: Positions, reason: str | None = None) -> Self:
        """The candidates at these positions, none of which is read: for this reason, or each for its own."""
        reasons = None if self.reasons is None else self.reasons[positions]
        rows = self.rows[positions]
        return type(self)(
            keys=take_texts(self.keys, positions),
            shards=take_texts(self.shards, positions),
            rows=rows,
            labels=take_labels(self.labels, positions),
            il=None if self.il is None else self.il[positions],
            extra={name: column[positions] for name, column in self.extra.items() if name not in EMBEDDINGS},
            reasons=reasons if reason is None else np.full(len(rows), reason, object),
        )

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """One part after the other; of the extra columns those that every part has."""
        parts = [part for part in parts if len(part)] or parts[:1]
        if len(parts) == 1:
            return parts[0]
        il = [part.il for part in parts if part.il is not None]
        reasons = [np.full(len(part), "", object) if part.reasons is None else part.reasons for part in parts]
        texts = [part.texts for part in parts if part.texts is not None]
        tokens = [part.tokens for part in parts if part.tokens is not None]
        shared = [name for name in parts[0].extra if all(name in part.extra for part in parts)]
        return cls(
            keys=[key for part in parts for key in part.keys],
            shards=[shard for part in parts for shard in part.shards],
            rows=np.concatenate([part.rows for part in parts]),
            labels=concat_labels([part.labels for part in parts]),
            il=np.concatenate(il) if len(il) == len(parts) else None,
            extra={name: np.concatenate([part.extra[name] for part in parts]) for name in shared},
            reasons=None if all(part.reasons is None for part in parts) else np.concatenate(reasons),
            refs={name: StoredRefs.concat([part.refs[name] for part in parts]) for name in parts[0].refs},
            texts=[text for some in texts for text in some] if len(texts) == len(parts) else None,
            tokens=pa.concat_arrays(tokens) if len(tokens) == len(parts) else None,
        )
