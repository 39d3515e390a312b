"""What `datasets` tells of a column beside its Arrow type: the names of its classes."""

import json
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from rhostream.pipeline.corpora.base import Label
from rhostream.pipeline.corpora.labels import Parser

#: Of a schema's metadata; its value is JSON, {"info": {"features": {column: {"_type": …}}}}.
METADATA_KEY: Final = b"huggingface"

_UNLABELED: Final = -1  # what `datasets` writes for a label that is not known
_LISTS: Final = ("Sequence", "List", "LargeList")


def features_of(schema: pa.Schema) -> Mapping[str, Any]:
    """Feature by column, as the schema of a Parquet file or Arrow stream tells them; empty where it tells none."""
    try:
        told = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
    except (ValueError, RecursionError):
        return {}
    for name in ("info", "features"):
        told = told.get(name) if isinstance(told, Mapping) else None
    return told if isinstance(told, Mapping) else {}


def class_names(features: Mapping[str, Any], column: str) -> tuple[str, ...]:
    """Names behind the numbers of a ClassLabel column, or of a list of them; none of any other column."""
    feature = features.get(column)
    while True:
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        elif isinstance(feature, Mapping) and feature.get("_type") in _LISTS:
            feature = feature.get("feature")
        else:
            break
    if not isinstance(feature, Mapping) or feature.get("_type") != "ClassLabel":
        return ()
    names = feature.get("names")
    return tuple(map(str, names)) if isinstance(names, list) else ()


class ClassLabelParser:
    """Reads the numbers of a ClassLabel column, or lists of them, by their names.

    Args:
        names: of the numbers, from 0.
        parser: of these names, which finds their place among the corpus's classes.
    """

    def __init__(self, names: tuple[str, ...], parser: Parser) -> None:
        self._names, self._parser = names, parser

    def parse(self, raw: Any) -> tuple[Label | None, str, str]:
        """See `Parser`; -1, as `datasets` has it, is a label that is not there."""
        numbers = raw if isinstance(raw, list) else [raw]
        beyond = [n for n in numbers if n is not None and not _UNLABELED <= n < len(self._names)]
        if beyond:
            return None, "label_out_of_range", f"{beyond[0]} is not in 0 to {len(self._names) - 1}"
        names = [None if n in (None, _UNLABELED) else self._names[n] for n in numbers]
        return self._parser.parse(names if isinstance(raw, list) else names[0])
