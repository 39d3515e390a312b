"""Extra columns: what a corpus knows of its entries beyond image (or text) and label, kept in the index."""

from collections.abc import Iterable
from typing import Final

import pyarrow as pa

from rhostream.errors import ConfigError
from rhostream.pipeline.config import TaskName
from rhostream.schema import PAIR, SAMPLES, TEXT, of_task

#: Added to the name of an extra column which is also the name of a column of the index.
GIVEN_SUFFIX: Final = "_given"

#: The true label where a corpus knows it beside the label it trains on: an index into the classes.
CLEAN_LABEL: Final = "clean_label"
CLEAN_LABEL_TYPE: Final = pa.int32()


def extra_column_name(name: str, task: TaskName = "classification") -> str:
    """The name under which the index keeps the corpus's column `name`: `width` becomes `width_given`."""
    own = {
        *SAMPLES.names,
        *(field.name for field in TEXT),
        *of_task(SAMPLES, task).names,
        *([] if task == "classification" else [CLEAN_LABEL]),
        *([field.name for field in PAIR] if task == "pairs" else []),
    }
    taken = {column.lower() for column in own}  # DuckDB's column names know no case
    return name + GIVEN_SUFFIX if name.lower() in taken else name


def index_columns(names: Iterable[str], task: TaskName, where: str) -> dict[str, str]:
    """For each of a corpus's extra columns the name under which the index keeps it.

    Raises:
        ConfigError: two would have one name; `where` begins the message.
    """
    kept: dict[str, str] = {}
    for name in names:
        column = extra_column_name(name, task)
        if column.lower() in (known.lower() for known in kept.values()):
            raise ConfigError(
                f"{where}: two columns would be {column!r} in the index, where upper and lower case are one; leave one "
                "out, in a manifest by [options] extra"
            )
        kept[name] = column
    return kept
