"""Token ids that are stored beside the shards, as the stream gives them."""

import numpy as np
import pyarrow as pa

from rhostream.loaders.decode import NO_TOKEN, Failures, Tokens


class StoredIds:
    """Ids of n texts in the place of `PendingInputs`: they are there already.

    Args:
        ids: a list of int32 for each text.
    """

    texts: list[str] | None = None

    def __init__(self, ids: pa.ListArray) -> None:
        self._ids = ids

    def result(self) -> tuple[Tokens, Failures]:
        lengths = np.diff(self._ids.offsets.to_numpy())
        longest = max(1, int(lengths.max())) if len(lengths) else 1
        tokens = np.full((len(lengths), longest), NO_TOKEN, np.int32)
        tokens[np.arange(longest) < lengths[:, None]] = self._ids.flatten().to_numpy()
        return tokens, []
