"""Extra columns: what a corpus knows of its entries beyond image and label, kept in the index."""

from typing import Final

import pyarrow as pa

from rhostream.pipeline.config import TaskName
from rhostream.schema import SAMPLES, of_task

#: Added to the name of an extra column which is also the name of a column of the index.
GIVEN_SUFFIX: Final = "_given"

#: The true label where a corpus knows it beside the label it trains on: an index into the classes.
CLEAN_LABEL: Final = "clean_label"
CLEAN_LABEL_TYPE: Final = pa.int32()


def extra_column_name(name: str, task: TaskName = "classification") -> str:
    """The name under which the index keeps the corpus's column `name`: `width` becomes `width_given`."""
    own = {*SAMPLES.names, *of_task(SAMPLES, task).names, *([CLEAN_LABEL] if task == "multi_label" else [])}
    taken = {column.lower() for column in own}  # DuckDB's column names know no case
    return name + GIVEN_SUFFIX if name.lower() in taken else name
