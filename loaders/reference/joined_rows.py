"""What a reference table says of the rows of one shard."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from rhostream.errors import IrreducibleLossError
from rhostream.loaders.index import ShardRows


@dataclass(frozen=True, kw_only=True)
class JoinedRows:
    """What the IL table says of the rows of one shard, each of length n.

    Attributes:
        il: float32, nats; NaN where the table has no value.
        predicted: int32, the IL model's class; -1 where the table does not say.
        embeddings: of pairs float16 (n, D) each, `image_embedding` and `text_embedding`; else empty.
    """

    il: npt.NDArray[np.float32]
    predicted: npt.NDArray[np.int32]
    embeddings: Mapping[str, npt.NDArray[np.float16]] = field(default_factory=dict)


def unusable(joined: JoinedRows, rows: ShardRows, on_missing: Literal["error", "drop"]) -> npt.NDArray[np.bool_]:
    """bool (n,): rows without a finite irreducible loss.

    Raises:
        IrreducibleLossError: there are some, and the caller did not ask to drop them.
    """
    bad = ~np.isfinite(joined.il)
    if bad.any() and on_missing == "error":
        example = rows.keys[int(np.argmax(bad))].as_py()
        raise IrreducibleLossError(
            f"shard {rows.shard.name}: {int(bad.sum())} of {len(rows)} samples have no finite "
            f"irreducible loss (the first is {example}): score the shards again, or pass "
            'on_missing="drop" to pass over such samples'
        )
    return bad
