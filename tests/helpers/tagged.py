"""A small learnable multi-label corpus: images with any of three colored bars, none included."""

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from helpers.support import put
from rhostream.pipeline.config.manifest import Manifest

CLASSES = ("blue", "green", "red")  # in the order of their names

Row = tuple[str, tuple[str, ...], str]  # path, classes, split


def bars(number: int, side: int = 16) -> bytes:
    """A PNG of noise with a bar for each class of `classes_of(number)`, each at its own height."""
    pixels = np.random.default_rng(number).integers(0, 60, (side, side, 3), dtype=np.uint8)
    for name in classes_of(number):
        place = CLASSES.index(name)
        pixels[2 + 5 * place : 5 + 5 * place, 2:-2, 2 - place] = 230
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def classes_of(number: int) -> tuple[str, ...]:
    """Each of the three or not, all eight cases in turn."""
    return tuple(name for place, name in enumerate(CLASSES) if number >> place & 1)


def write_tagged(folder: Path, write_table: Callable[[Path, list[Row]], None], images: int = 240) -> Path:
    """So many images, every fifth of the official split "test", and their table."""
    rows: list[Row] = []
    for number in range(images):
        put(folder / f"{number}.png", bars(number))
        rows.append((f"{number}.png", classes_of(number), "test" if number % 5 == 0 else ""))
    write_table(folder, rows)
    return folder


def as_text(folder: Path, rows: Iterable[Row]) -> None:
    """One column, the classes of a sample with semicolons between them."""
    _csv(folder, ["path", "label", "split"], [[path, ";".join(names), split] for path, names, split in rows])


def as_columns(folder: Path, rows: Iterable[Row]) -> None:
    """A column of 0 and 1 for each class."""
    table = [[path, *(str(int(name in names)) for name in CLASSES), split] for path, names, split in rows]
    _csv(folder, ["path", *CLASSES, "split"], table)


def as_json_lines(folder: Path, rows: Iterable[Row]) -> None:
    lines = [json.dumps({"path": path, "label": list(names), "split": split or None}) for path, names, split in rows]
    put(folder / "tags.jsonl", "\n".join(lines) + "\n")


def as_parquet(folder: Path, rows: Iterable[Row]) -> None:
    """A list column."""
    paths, names, splits = zip(*rows, strict=True)
    table = {"path": paths, "label": pa.array([list(each) for each in names], pa.list_(pa.string())), "split": splits}
    pq.write_table(pa.table(table), folder / "tags.parquet")


def as_tars(folder: Path, rows: Iterable[Row]) -> None:
    """WebDataset tars, `train.tar` and `test.tar`, with the classes as a list in each sample's .json."""
    by_split: dict[str, list[Row]] = {"train": [], "test": []}
    for row in rows:
        by_split[row[2] or "train"].append(row)
    for split, some in by_split.items():
        with tarfile.open(folder / f"{split}.tar", "w") as tar:
            for path, names, _ in some:
                key = path.removesuffix(".png")
                for name, content in (
                    (path, (folder / path).read_bytes()),
                    (f"{key}.json", json.dumps({"tags": list(names)}).encode()),
                ):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def tagged_manifest(folder: Path, *, kind: str = "table", **options: object) -> Manifest:
    if kind == "table":
        options = {"split_column": "split", **options}
    return Manifest(
        name="tagged",
        format=kind,
        task="multi_label",
        root=str(folder),
        shard_size=64,
        holdout=0.3,
        image={"size": 16},
        options=options,
    )


def _csv(folder: Path, header: list[str], rows: Iterable[list[str]]) -> None:
    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
