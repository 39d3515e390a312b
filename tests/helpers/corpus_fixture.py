"""A small learnable corpus in the promised format: colored shapes, a share of them mislabeled, the truth known."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from helpers.made_once import made_once
from helpers.tiny import write_corpus_card
from rhostream.loaders.index.corpus_metadata import SHARD_DIGEST_KEY
from rhostream.loaders.storage.workspace import Workspace
from rhostream.schema import SAMPLES

CLASSES = ("disc", "square", "cross", "ring")


def shape(label: int, seed: int, side: int = 20) -> bytes:
    """A PNG of one shape of a random color, size and place on a noisy ground."""
    random = np.random.default_rng(seed)
    ground = random.integers(0, 90, (side, side, 3), dtype=np.uint8)
    image = Image.fromarray(ground)
    draw = ImageDraw.Draw(image)
    color = tuple(int(value) for value in random.integers(130, 256, 3))
    reach = int(random.integers(side // 4, side // 3 + 1))
    x, y = (int(value) for value in random.integers(reach + 1, side - reach - 1, 2))
    box = (x - reach, y - reach, x + reach, y + reach)
    if label == 0:
        draw.ellipse(box, fill=color)
    elif label == 1:
        draw.rectangle(box, fill=color)
    elif label == 2:
        draw.line((x - reach, y, x + reach, y), fill=color, width=3)
        draw.line((x, y - reach, x, y + reach), fill=color, width=3)
    else:
        draw.ellipse(box, outline=color, width=2)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@made_once
def write_shapes(
    folder: Path,
    *,
    splits: Mapping[str, int],
    folds: int = 0,
    noise: float = 0.0,
    shard_rows: int = 100,
    side: int = 20,
    classes: tuple[str, ...] = CLASSES,
    copies: int = 1,
) -> Workspace:
    """Write shards, index and corpus.json, without `rho shards`.

    Args:
        splits: samples of each split, for instance {"train": 400, "holdout": 200, "test": 100}.
        folds: the train split is cut into so many, each in shards of its own.
        noise: share of the train and holdout labels that move to another class; `clean_label` keeps the truth.
        copies: of each image, one after the other; wrong labels fall on each copy by itself.
    """
    workspace = Workspace(folder)
    shards: list[dict[str, object]] = []
    number = 0
    for split, count in splits.items():
        groups = range(folds) if folds and split == "train" else [-1]
        serial = 0
        for fold in groups:
            left = count // len(groups)
            while left > 0:
                rows, name = min(left, shard_rows), f"{split}-{serial:06d}"
                moved = noise if split in ("train", "holdout") else 0.0
                numbers = range(number, number + rows)
                shards.append(_write_shard(workspace, name, split, fold, numbers, moved, side, copies))
                number, left, serial = number + rows, left - rows, serial + 1
    shards.sort(key=lambda shard: str(shard["name"]))
    manifest = {"name": "shapes", "image": {"size": side}, "il": {}, "train": {}}
    counts = {"entries": number, "samples": number, "rejects": 0}
    write_corpus_card(workspace, {"manifest": manifest, "classes": list(classes), "counts": counts, "shards": shards})
    return workspace


def _write_shard(
    workspace: Workspace, name: str, split: str, fold: int, numbers: range, noise: float, side: int, copies: int
) -> dict[str, object]:
    rows = []
    with workspace.writing(f"shards/{name}.tar") as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for row, number in enumerate(numbers):
            picture = number // copies
            clean = int(np.random.default_rng((picture, 1)).integers(len(CLASSES)))
            random = np.random.default_rng((number, 2))
            moves = random.random() < noise
            label = (clean + int(random.integers(1, len(CLASSES)))) % len(CLASSES) if moves else clean
            data = shape(clean, picture, side)
            member = tarfile.TarInfo(f"k{number:06d}.png")
            member.size = len(data)
            offset = tar.offset + tarfile.BLOCKSIZE
            tar.addfile(member, io.BytesIO(data))
            content = hashlib.sha256(data).hexdigest()[:32]
            rows.append(
                {
                    "key": f"k{number:06d}",
                    "split": split,
                    "fold": fold,
                    "shard": name,
                    "row": row,
                    "offset": offset,
                    "size": len(data),
                    "ext": "png",
                    "label": label,
                    "class": CLASSES[label],
                    "source": f"{number}.png",
                    "content_hash": content,
                    "width": side,
                    "height": side,
                    "clean_label": clean,
                }
            )
    digest = hashlib.sha256(repr(rows).encode()).hexdigest()
    columns = pa.schema([*SAMPLES, pa.field("clean_label", pa.int32())], {SHARD_DIGEST_KEY: digest.encode()})
    workspace.write_table(f"index/{name}.parquet", pa.Table.from_pylist(rows, columns))
    return {"name": name, "split": split, "fold": fold, "rows": len(rows), "digest": digest}
