"""The corpora of benchmarks/unseen.py, from product photographs and emoji with what their catalogs say of them.

    python benchmarks/unseen_corpora.py ../shared/data/pairs corpora

Writes CORPORA/NAME/ (images and labels.csv with path, label and split), CORPORA/NAME.toml and, with 40% of the labels
of the training split wrong (uniform noise), CORPORA/NAME-40.toml. Of the 41,009 photographs that repeat no other,
in a seeded order, each corpus takes 9,000 of its own, whose label 150 or more have, a fifth of them for the test:
`types`, `colors`, `subcategories`, and `wearers` (men, women, boys, girls, unisex, kids: by the titles). `emoji` are
7,070 of four vendors by their 9 groups, a fifth of the code points for the test. The photographs are for measuring
only.
"""

import argparse
import collections
import csv
import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

PHOTOGRAPHS: Final = 9_000  # of a corpus
FEWEST: Final = 150  # of a class, among all photographs
TEST: Final = 5  # one in so many
WEARERS: Final = ("unisex", "boys", "girls", "kids", "women", "men")  # the first that a title names

Row = Mapping[str, str]

LABELS: Final[dict[str, Callable[[Row], str]]] = {
    "types": lambda row: row["type"],
    "colors": lambda row: row["colour"],
    "subcategories": lambda row: row["subcategory"],
    "wearers": lambda row: wearer(row["caption"]),
}
MANIFEST: Final = """name = "{name}"
format = "table"
root = "{root}"

[options]
file = "labels.csv"
split_column = "split"
"""
NOISE: Final = """
[noise]
kind = "uniform"
rate = 0.4
seed = 1
"""


def wearer(title: str) -> str:
    """Whom a product is for, by its title; "" where it does not say."""
    words = {word.removesuffix("'s") for word in title.lower().split()}
    return next((name for name in WEARERS if name in words), "")


def write(folder: Path, name: str, images: Iterable[tuple[str, bytes, str, str]]) -> None:
    """Write a corpus of (file name, bytes, label, split), and its two manifests."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    counts: collections.Counter[str] = collections.Counter()
    with (place / "labels.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "label", "split"])
        for file, content, label, split in images:
            (place / file).write_bytes(content)
            table.writerow([file, label, split])
            counts[split] += 1
    manifest = MANIFEST.format(name=name, root=place.resolve())
    (folder / f"{name}.toml").write_text(manifest, encoding="utf-8")
    (folder / f"{name}-40.toml").write_text(manifest + NOISE, encoding="utf-8")
    print(name, dict(counts), flush=True)


def photographs(pairs: Path, folder: Path) -> None:
    with (pairs / "fashion.tsv").open(encoding="utf-8", newline="") as stream:
        rows = [
            row for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE) if not row["duplicate_of"]
        ]
    table = pq.read_table(pairs / "fashion-images.parquet")
    jpegs = dict(zip(table["key"].to_pylist(), table["jpg"].to_pylist(), strict=True))
    random.Random(0).shuffle(rows)
    taken: set[str] = set()
    for name, label in LABELS.items():
        known = collections.Counter(map(label, rows))
        usual = {value for value, count in known.items() if value and count >= FEWEST}
        own = [row for row in rows if row["key"] not in taken and label(row) in usual][:PHOTOGRAPHS]
        taken |= {row["key"] for row in own}
        images = (
            (f"{row['key']}.jpg", jpegs[row["key"]], label(row), "train" if number % TEST else "test")
            for number, row in enumerate(own)
        )
        write(folder, name, images)


def emoji(pairs: Path, folder: Path) -> None:
    rows = [row for row in pq.read_table(pairs / "emoji.parquet").to_pylist() if row["group"] not in ("", "component")]
    codes = sorted({row["code"] for row in rows})
    random.Random(0).shuffle(codes)
    tested = set(codes[::TEST])
    images = (
        (f"{row['key']}.webp", row["webp"], row["group"], "test" if row["code"] in tested else "train") for row in rows
    )
    write(folder, "emoji", images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, help="folder of fashion.tsv, fashion-images.parquet and emoji.parquet")
    parser.add_argument("corpora", type=Path, help="where to write")
    arguments = parser.parse_args()
    photographs(arguments.pairs, arguments.corpora)
    emoji(arguments.pairs, arguments.corpora)


if __name__ == "__main__":
    main()
