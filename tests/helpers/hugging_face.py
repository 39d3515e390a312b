"""Datasets in the layouts of the package `datasets` (compared with what 5.2 writes), written by pyarrow alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from helpers.support import jpeg

CLASSES = ("cat", "dog", "bird")
FEATURES: Mapping[str, Any] = {
    "image": {"_type": "Image"},
    "label": {"names": list(CLASSES), "_type": "ClassLabel"},
    "caption": {"dtype": "string", "_type": "Value"},
}
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def table(count: int, first: int = 0, **columns: Sequence[Any] | pa.Array) -> pa.Table:
    """Images with the numbers from `first`, their labels and captions; `columns` replace or add some."""
    numbers = range(first, first + count)
    values: dict[str, Any] = {
        "image": [{"bytes": jpeg(number), "path": f"{number}.jpg"} for number in numbers],
        "label": [number % len(CLASSES) for number in numbers],
        "caption": [f"caption {number}" for number in numbers],
        **columns,
    }
    values["image"] = pa.array(values["image"], _IMAGE) if isinstance(values["image"], list) else values["image"]
    return pa.table(values)


def described(rows: pa.Table, features: Mapping[str, Any] = FEATURES) -> pa.Table:
    """With the metadata that `datasets` writes."""
    return rows.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": dict(features)}})})


def write_hub(folder: Path, splits: Mapping[str, Sequence[pa.Table]], features: Mapping[str, Any] = FEATURES) -> Path:
    """As `push_to_hub` does: `data/<split>-00000-of-00002.parquet`, a file for each table."""
    (folder / "data").mkdir(parents=True)
    for split, tables in splits.items():
        for number, rows in enumerate(tables):
            file = folder / "data" / f"{split}-{number:05d}-of-{len(tables):05d}.parquet"
            pq.write_table(described(rows, features), file, row_group_size=4)
    return folder


def write_dataset(
    folder: Path, tables: Sequence[pa.Table], split: str | None = None, features: Mapping[str, Any] = FEATURES
) -> Path:
    """As `Dataset.save_to_disk` does: an Arrow stream for each table, of batches of at most 5 rows."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05d}-of-{len(tables):05d}.arrow" for number in range(len(tables))]
    for name, rows in zip(names, tables, strict=True):
        rows = described(rows, features)
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, rows.schema) as stream:
            stream.write_table(rows, max_chunksize=5)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "6a5dc828306fc0fe", "_split": split}
    (folder / "state.json").write_text(json.dumps(state, indent=2))
    (folder / "dataset_info.json").write_text(json.dumps({"citation": "", "features": dict(features)}, indent=2))
    return folder


def write_dict(folder: Path, splits: Mapping[str, Sequence[pa.Table]], features: Mapping[str, Any] = FEATURES) -> Path:
    """As `DatasetDict.save_to_disk` does."""
    for split, tables in splits.items():
        write_dataset(folder / split, tables, features=features)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder
