"""Which copies of photographs `rho report --near-duplicates` finds, and how many pairs that are none.

    python benchmarks/near_duplicates.py --output benchmarks/results/near_duplicates.json

Takes the photographs of `unpack.py imagefolder`, and of each 30th makes a copy in every way; all of them are shards
then. Counted are the copies that are found beside their original, and the pairs that nobody has planted.

Expected: all that are encoded, resized or brightened again, none that are cropped or mirrored. Of the pairs that nobody
planted 24 are equal files, which the data set has on purpose, and one shows the same shorts, stored twice. Half a
minute of one core.
"""

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from machine import machine
from PIL import Image, ImageEnhance, ImageOps

from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.report.copies import find_copies
from rhostream.pipeline.shards import write_shards

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data"
EVERY: Final = 30


def encoded(image: Image.Image, quality: int = 85) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def ways(image: Image.Image) -> dict[str, bytes]:
    """A copy of each kind."""
    width, height = image.size
    edge = (round(width * 0.03), round(height * 0.03))
    return {
        "encoded at quality 40": encoded(image, 40),
        "of half the size": encoded(image.resize((width // 2, height // 2))),
        "15% brighter": encoded(ImageEnhance.Brightness(image).enhance(1.15)),
        "cropped by 3% a side": encoded(image.crop((*edge, width - edge[0], height - edge[1]))),
        "mirrored": encoded(ImageOps.mirror(image)),
    }


def samples(folder: Path) -> Iterator[tuple[str, bytes, str, str]]:
    for number, path in enumerate(sorted(folder.rglob("*.jpg"))):
        content = path.read_bytes()
        yield f"p{number}", content, path.parent.name, "train"
        if number % EVERY == 0:
            for way, made in enumerate(ways(Image.open(io.BytesIO(content)).convert("RGB")).values()):
                yield f"p{number}-{way}", made, path.parent.name, "train"


def measure(folder: Path) -> dict[str, Any]:
    subprocess.run([sys.executable, str(DATA / "unpack.py"), "imagefolder", str(folder / "photos")], check=True)
    photographs = sorted((folder / "photos").rglob("*.jpg"))
    contents = [hashlib.sha256(path.read_bytes()).digest() for path in photographs]
    classes = tuple(sorted({path.parent.name for path in photographs}))
    workspace = Workspace(folder / "w")
    given = list(samples(folder / "photos"))
    write_shards(workspace, samples=given, classes=classes, holdout=0.0, folds=2, workers=0)
    begin = time.process_time()
    copies = find_copies(workspace, CorpusMetadata.read(workspace), pairs=len(given) * 10)
    seconds = time.process_time() - begin
    planted = dict.fromkeys(ways(Image.new("RGB", (99, 99))), 0)
    others = set()
    for pair in copies.pairs:
        (one, way), (other, way_of_other) = (key.partition("-")[::2] for key in (pair.first, pair.second))
        if one != other:
            others.add(frozenset((one, other)))
        elif not (way and way_of_other):
            planted[list(planted)[int(way or way_of_other)]] += 1
    equal = sum(len({contents[int(name[1:])] for name in pair}) == 1 for pair in others)
    return {
        "benchmark": "near_duplicates",
        "machine": machine(),
        "photographs": len(photographs),
        "copies_of_each_kind": -(-len(photographs) // EVERY),
        "found": planted,
        "not_planted": {"equal files": equal, "others": len(others) - equal},
        "looked_at": copies.looked_at,
        "cpu_seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    print(json.dumps(found, indent=1))
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
