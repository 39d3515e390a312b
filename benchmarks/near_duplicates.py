"""Which copies `rho report --near-duplicates` and `rho explain copies` find, and how many pairs that are none.

    python benchmarks/near_duplicates.py --output benchmarks/results/near_duplicates.json

Takes the photographs of `unpack.py imagefolder`, on which the thresholds were chosen, and three corpora on which they
were not: product photographs of 60x80 pixels on white, tiny photographs of 32x32, and drawings (emoji of four vendors).
Of each 20th a copy is made in every way; all are shards then. Counted are the copies that are found beside their
original, and the pairs that nobody has planted: equal files, and others, which may be copies that the data set has by
itself. `--sheet DIR` draws some of these others side by side, to look at.

Expected: nine in ten of the copies of photographs, whether encoded, resized or cropped again, none of the mirrored.
Three minutes of one core.
"""

import argparse
import io
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from machine import machine
from PIL import Image, ImageEnhance, ImageOps

from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.explain import find_copies
from rhostream.pipeline.shards import write_shards

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data"
EVERY: Final = 20


def encoded(image: Image.Image, quality: int = 85) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def ways(image: Image.Image) -> dict[str, bytes]:
    """A copy of each kind."""
    return {
        "encoded at quality 60": encoded(image, 60),
        "encoded at quality 95": encoded(image, 95),
        "resized by 0.7": encoded(resized(image, 0.7)),
        "resized by 1.3": encoded(resized(image, 1.3)),
        "15% brighter": encoded(ImageEnhance.Brightness(image).enhance(1.15)),
        "cropped by 2% a side": encoded(cropped(image, 0.02)),
        "cropped by 3.5% a side": encoded(cropped(image, 0.035)),
        "cropped by 5% a side": encoded(cropped(image, 0.05)),
        "mirrored": encoded(ImageOps.mirror(image)),
    }


def resized(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)))


def cropped(image: Image.Image, share: float) -> Image.Image:
    across, down = round(image.width * share), round(image.height * share)
    return image.crop((across, down, image.width - across, image.height - down))


def photographs(folder: Path) -> Iterator[bytes]:
    subprocess.run([sys.executable, str(DATA / "unpack.py"), "imagefolder", str(folder / "photos")], check=True)
    for path in sorted((folder / "photos").rglob("*.jpg")):
        yield path.read_bytes()


def products(folder: Path) -> Iterator[bytes]:
    images = pq.read_table(DATA / "pairs" / "fashion-images.parquet", columns=["jpg"])["jpg"]
    for position in np.random.default_rng(0).permutation(len(images))[:3000]:
        yield images[int(position)].as_py()


def tiny(folder: Path) -> Iterator[bytes]:
    for sheet in range(3):
        pixels = np.asarray(Image.open(DATA / "cifar10" / f"test_batch_{sheet}.webp").convert("RGB"))
        for tile in pixels.reshape(25, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3):
            buffer = io.BytesIO()
            Image.fromarray(tile).save(buffer, "PNG", compress_level=1)
            yield buffer.getvalue()


def drawings(folder: Path) -> Iterator[bytes]:
    images = pq.read_table(DATA / "pairs" / "emoji.parquet", columns=["webp"])["webp"][:4000]
    yield from (image.as_py() for image in images)


CORPORA: Final = {
    "photographs": photographs,
    "product photographs": products,
    "tiny photographs": tiny,
    "drawings": drawings,
}


def samples(contents: Sequence[bytes]) -> Iterator[tuple[str, bytes, str, str]]:
    for number, content in enumerate(contents):
        yield f"p{number}", content, "some", "train"
        if number % EVERY == 0:
            for way, made in enumerate(ways(Image.open(io.BytesIO(content)).convert("RGB")).values()):
                yield f"p{number}-{way}", made, "some", "train"


def measure(name: str, folder: Path, sheet: Path | None) -> dict[str, Any]:
    folder.mkdir()
    contents = list(CORPORA[name](folder))
    workspace = Workspace(folder / "w")
    given = list(samples(contents))
    write_shards(workspace, samples=given, classes=("some", "none"), holdout=0.0, folds=2, workers=0)
    begin = time.process_time()
    copies = find_copies(workspace, CorpusMetadata.read(workspace), pairs=len(given) * 100)
    seconds = time.process_time() - begin
    kinds = list(ways(Image.new("RGB", (99, 99))))
    planted, others = dict.fromkeys(kinds, 0), dict[frozenset[str], float]()
    for pair in copies.pairs:
        (one, way), (other, way_of_other) = (key.partition("-")[::2] for key in (pair.first, pair.second))
        if one != other and not (way or way_of_other):
            others[frozenset((one, other))] = pair.likeness
        elif one == other and not (way and way_of_other):
            planted[kinds[int(way or way_of_other)]] += 1
    unequal = [sorted(pair) for pair in others if len({contents[int(key[1:])] for key in pair}) > 1]
    if sheet is not None:
        draw(sheet / f"{name.replace(' ', '-')}.png", [[contents[int(key[1:])] for key in pair] for pair in unequal])
    return {
        "corpus": name,
        "images": len(contents),
        "copies_of_each_kind": -(-len(contents) // EVERY),
        "found": planted,
        "not_planted": {"equal files": len(others) - len(unequal), "others": len(unequal)},
        "looked_at": copies.looked_at,
        "cpu_seconds": round(seconds, 1),
    }


def draw(file: Path, pairs: list[list[bytes]]) -> None:
    """48 of the pairs, drawn at random."""
    page = Image.new("RGB", (8 * 140, 6 * 70), "white")
    chosen = random.Random(0).sample(pairs, min(48, len(pairs)))
    for number, pair in enumerate(chosen):
        for side, content in enumerate(pair):
            image = Image.open(io.BytesIO(content)).convert("RGB").resize((64, 64))
            page.paste(image, (number % 8 * 140 + side * 66, number // 8 * 70))
    page.save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--sheet", type=Path, metavar="DIR", help="draw pairs that nobody planted into this folder")
    parser.add_argument("--only", nargs="+", choices=[*CORPORA], default=[*CORPORA], metavar="CORPUS")
    arguments = parser.parse_args()
    corpora = []
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(arguments.only):
            corpora.append(measure(name, Path(folder) / str(number), arguments.sheet))
            print(json.dumps(corpora[-1]), flush=True)
    found = {"benchmark": "near_duplicates", "machine": machine(), "corpora": corpora}
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
