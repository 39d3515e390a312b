"""A small corpus as a table, for the tests of `rho shards`, and what its workspace holds."""

import csv
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from helpers.support import jpeg, put
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.manifest import Manifest

CLASSES = ("cat", "dog", "bird")


def write_corpus(folder: Path, images: int = 60, extra_rows: Iterable[tuple[str, str]] = ()) -> Path:
    """`images` good JPEGs and a `labels.csv`; `extra_rows` are (path, label)."""
    rows = []
    for number in range(images):
        path = f"photos/{number % 7}/{number},{number * 31}.jpg"
        put(folder / path, jpeg(number))
        rows.append((path, CLASSES[number % 3]))
    write_table(folder, [*rows, *extra_rows])
    return folder


def write_table(folder: Path, rows: Iterable[tuple[str, ...]], header: tuple[str, ...] = ("path", "label")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def manifest_of(folder: Path, **settings: object) -> Manifest:
    values = {
        "name": "tiny",
        "format": "table",
        "root": str(folder),
        "shard_size": 16,
        "holdout": 0.0 if "folds" in settings else 0.3,
        "classes": CLASSES,
    } | settings
    return Manifest(**values)  # type: ignore[arg-type]


def contents(workspace: Path) -> dict[str, str]:
    """Relative name to digest of every file."""
    return {
        str(path.relative_to(workspace)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(workspace.rglob("*"))
        if path.is_file()
    }


def samples(workspace: Path) -> list[dict[str, Any]]:
    return rows_of(workspace, "index")


def rejects(workspace: Path) -> list[dict[str, object]]:
    return rows_of(workspace, "rejects")


def rows_of(workspace: Path, folder: str) -> list[dict[str, object]]:
    place = Workspace(workspace)
    tables = [place.read_table(f"{folder}/{name}") for name in place.names(folder, ".parquet")]
    rows: list[dict[str, object]] = pa.concat_tables(tables).to_pylist()
    return rows
