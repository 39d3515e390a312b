"""A small corpus of image-text pairs: colored shapes and what they show, some captions wrong, the truth known."""

import io
import json
import random
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from helpers.made_once import made_once
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import ILScoreConfig, ILTrainConfig, resolve_manifest
from rhostream.pipeline.il import score_il, train_il
from rhostream.pipeline.shards import write_shards

COLORS = {"red": (220, 40, 40), "green": (40, 190, 60), "blue": (50, 70, 220), "yellow": (230, 220, 40)}
SHAPES = ("disc", "square", "cross", "bar")
GROUNDS = {"dark": 20, "pale": 235}


def picture(color: str, shape: str, ground: str, seed: int, side: int = 16) -> bytes:
    """A PNG."""
    noise = np.random.default_rng(seed).integers(0, 12, (side, side, 3))
    image = Image.fromarray(np.uint8(noise + GROUNDS[ground]))
    draw, fill, box = ImageDraw.Draw(image), COLORS[color], (3, 3, side - 4, side - 4)
    if shape == "disc":
        draw.ellipse(box, fill=fill)
    elif shape == "square":
        draw.rectangle(box, fill=fill)
    elif shape == "cross":
        draw.line((3, side // 2, side - 4, side // 2), fill=fill, width=3)
        draw.line((side // 2, 3, side // 2, side - 4), fill=fill, width=3)
    else:
        draw.rectangle((3, side // 2 - 1, side - 4, side // 2 + 1), fill=fill)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def pair(number: int, wrong: float = 0.0) -> tuple[bytes, str, bool]:
    """(image, caption, whether the caption is another one's), a function of the number."""
    draws = np.random.default_rng(number)
    color, shape, ground = (str(draws.choice(list(names))) for names in (COLORS, SHAPES, GROUNDS))
    moved = bool(np.random.default_rng((number, 1)).random() < wrong)
    told = str(draws.choice([each for each in COLORS if each != color])) if moved else color
    return picture(color, shape, ground, number), f"a {told} {shape} on a {ground} ground, number {number}", moved


def color_of(number: int) -> str:
    """What the image of `pair` shows."""
    return str(np.random.default_rng(number).choice(list(COLORS)))


def write_pairs_tar(path: Path, numbers: range, *, wrong: float = 0.0) -> Path:
    """Members `<key>.png`, `.txt` and `.json`, which also holds the caption, `mismatched`, and the true `color`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            image, caption, moved = pair(number, wrong)
            document = json.dumps({"caption": caption, "mismatched": moved, "color": color_of(number)}).encode()
            for name, data in (("png", image), ("txt", caption.encode()), ("json", document)):
                add_member(tar, f"{number:05d}.{name}", data)
    return path


def tangled_pairs(pairs: int, seed: int = 0) -> list[tuple[str, bytes, str]]:
    """(key, image, caption): images under several captions, captions of several images, and both at once."""
    chance = random.Random(seed)
    own = [f"caption {seed}-{number}" for number in range(pairs)]
    told = [caption if chance.random() < 0.6 else f"one of {chance.randrange(40)}" for caption in own]
    return [(f"{seed}-{number:04d}", pair(chance.randrange(240))[0], told[number]) for number in range(pairs)]


def write_tar_of(path: Path, samples: Iterable[tuple[str, bytes, str]]) -> Path:
    """Members `<key>.png` and `.txt`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, image, caption in samples:
            add_member(tar, f"{key}.png", image)
            add_member(tar, f"{key}.txt", caption.encode())
    return path


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def pairs_manifest(root: Path | str, **settings: Any) -> Any:
    options = {"extra": {"mismatched": "bool"}} | settings.pop("options", {})
    usual = {
        "name": "pairs", "format": "webdataset", "task": "pairs", "root": str(root), "holdout": 0.3,
        "image": {"size": 16}, "text": {"length": 16},
    }  # fmt: skip
    return resolve_manifest(("test", usual | settings | {"options": options}))


#: Of the manifest of `write_pairs_with_reference`.
REFERENCE_OPTIONS = {
    "extra": {"mismatched": "bool", "color": "string"},
    "splits": {"holdout.tar": "holdout", "test.tar": "test"},
}
#: The reference model of `write_pairs_with_reference`.
REFERENCE = ILTrainConfig(model="small_clip", steps=60, batch_size=64, device="cpu")
#: A caption that is out to break the page or the terminal.
HOSTILE = "</script><script>alert(1)</script> \x1b[2J\u202e'\"&"


@made_once
def write_pairs_with_reference(folder: Path) -> Workspace:
    """160 training pairs, 40% of them mismatched, a hostile and an empty caption; 200 held out, 40 to test on."""
    root = folder.with_name("corpus-of-pairs")  # which the workspace's copies name, too
    write_pairs_tar(root / "train.tar", range(160), wrong=0.4)
    write_pairs_tar(root / "holdout.tar", range(100_000, 100_200))
    write_pairs_tar(root / "test.tar", range(200_000, 200_040))
    with tarfile.open(root / "hostile.tar", "w") as tar:
        for number, (name, caption) in enumerate((("evil", HOSTILE), ("mute", "")), 300):
            document = json.dumps({"mismatched": True, "color": color_of(number)}).encode()
            for end, data in (("png", pair(number)[0]), ("txt", caption.encode()), ("json", document)):
                add_member(tar, f"{name}.{end}", data)
    workspace = Workspace(folder)
    write_shards(workspace, pairs_manifest(root, holdout=0.0, options=REFERENCE_OPTIONS), workers=0)
    train_il(workspace, REFERENCE)
    score_il(workspace, ILScoreConfig(device="cpu"))
    return workspace


def write_pairs(
    folder: Path, rows: int = 200, *, wrong: float = 0.0, holdout: int = 0, test_rows: int = 0, **settings: Any
) -> Workspace:
    """A workspace of pairs: the training ones, and where asked for clean ones as the holdout, and as the test split."""
    root, splits = folder / "corpus", {}
    write_pairs_tar(root / "train.tar", range(rows), wrong=wrong)
    for name, count, start in (("holdout", holdout, 100_000), ("test", test_rows, 200_000)):
        if count:
            write_pairs_tar(root / f"{name}.tar", range(start, start + count))
            splits[f"{name}.tar"] = name
    workspace = Workspace(folder / "workspace")
    asked = {"options": {"splits": splits}, **({"holdout": 0.0} if holdout else {})} | settings
    write_shards(workspace, pairs_manifest(root, **asked), workers=0)
    return workspace
