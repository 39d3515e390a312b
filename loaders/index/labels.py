"""What is to be predicted of samples, as the index has it: one class of each, or a list of classes of each."""

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rhostream.loaders.decode import Positions
from rhostream.loaders.index.columns import as_arrow, values

#: Classes of n samples: int32 (n,), or of a multi-label corpus a list of int32 for each, ascending and maybe empty.
Labels: TypeAlias = npt.NDArray[np.int32] | pa.ListArray

#: The column of an index that holds them: of a classification, of a multi-label corpus.
LABEL_COLUMNS: Final = ("label", "labels")

LABEL_LISTS: Final = pa.list_(pa.int32())


def labels_in(table: pa.Table) -> Labels:
    """Of the rows of an index."""
    if "label" in table.column_names:
        found: npt.NDArray[np.int32] = values(table.column("label"))
        return found
    return table.column("labels").combine_chunks()


def take_labels(labels: Labels, positions: Positions) -> Labels:
    """Of the samples at these positions, in this order."""
    return labels[positions] if isinstance(labels, np.ndarray) else take_lists(labels, positions)


def take_lists(lists: pa.ListArray, positions: Positions) -> pa.ListArray:
    """Those at these positions, in this order."""
    return lists[positions] if isinstance(positions, slice) else lists.take(as_arrow(positions))


def concat_labels(parts: Sequence[Labels]) -> Labels:
    """One part after the other."""
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    return np.concatenate(arrays) if len(arrays) == len(parts) else pa.concat_arrays(parts)
