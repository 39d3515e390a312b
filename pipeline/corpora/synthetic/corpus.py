"""The embedded demo corpus: drawn garments, written in the layout of Clothing-1M, with every label's truth known."""

import io
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow as pa
from PIL import Image, ImageEnhance

from rhostream.errors import CorpusError
from rhostream.loaders.decode import available_cores
from rhostream.loaders.storage import UnreadableError, decode_card, read_file
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.corpora.clothing1m import Clothing1M
from rhostream.pipeline.corpora.synthetic.photographs import draw
from rhostream.pipeline.corpora.synthetic.plan import CLASSES, SyntheticOptions, plan
from rhostream.pipeline.jobs import in_processes, progress

STAMP: Final = "synthetic.json"  # written first: whose folder this is, and how the corpus is drawn
MARKER: Final = "noisy_train_key_list.txt"  # written last: the corpus is complete
DRAWING: Final = 1  # of the pictures; raised when the same options draw others

STUDIO: Final = 0.5  # share of the training pictures that are studio pictures: redundant, soon learnt
STUDIO_OF_TEST: Final = 0.2
_BLOCK: Final = 256  # images a process draws before it reports
_PART: Final = ".part"

_WEB_PAGE: Final = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>gone</body></html>\n"


class Synthetic:
    """Draws the corpus at the manifest's root when first listed, unless it is there; then reads it as any copy."""

    Options = SyntheticOptions
    classes: tuple[str, ...] = CLASSES
    extra_columns: Mapping[str, pa.DataType] = Clothing1M.extra_columns

    def __init__(self, manifest: Manifest, options: SyntheticOptions) -> None:
        """Draws nothing yet.

        Raises:
            CorpusError: no root, or one that holds something else.
        """
        if not manifest.root:
            raise CorpusError(f"manifest {manifest.name!r} names no root to draw into: pass --root")
        self._manifest, self._options, self._root = manifest, options, Path(manifest.root)
        check_root(self._root, options)

    def entries(self) -> Iterator[Entry]:
        write_corpus(self._root, self._options, processes=available_cores())
        yield from Clothing1M(self._manifest, Clothing1M.Options()).entries()

    def read(self, entry: Entry) -> bytes:
        return read_file(self._root / entry.source)


def check_root(root: Path, options: SyntheticOptions) -> None:
    """Whether the corpus may be drawn, or finished, or read at `root`.

    Raises:
        CorpusError: there is something else, or a synthetic corpus of other options.
    """
    if not root.exists():
        return
    if not root.is_dir():
        raise CorpusError(f"{root} is a file: the synthetic corpus needs a folder, pass another --root")
    try:
        found = decode_card(read_file(root / STAMP))
    except FileNotFoundError:
        strangers = {path.name for path in root.iterdir()} - {STAMP + _PART}
        if strangers:
            raise CorpusError(
                f"{root} holds {min(strangers)!r} and no synthetic corpus, which would be drawn into it: pass another "
                "--root, or choose the format of what is there"
            ) from None
        return
    except UnreadableError:
        found = {}
    wanted = _stamp(options)
    if found != wanted:
        differing = sorted(name for name in wanted if found.get(name) != wanted[name])
        changes = ", ".join(f"{name} {found.get(name)} instead of {wanted[name]}" for name in differing)
        raise CorpusError(f"{root} holds a synthetic corpus with {changes}: delete it, or pass another --root")


def write_corpus(root: Path, options: SyntheticOptions, *, processes: int) -> None:
    """Draw the corpus unless it is complete; what was begun and killed is drawn again, to the same bytes.

    Args:
        processes: 0 draws in this one. Nothing in the corpus depends on it.

    Raises:
        CorpusError: see `check_root`.
    """
    check_root(root, options)
    if (root / MARKER).exists():
        return
    root.mkdir(parents=True, exist_ok=True)
    _write_whole(root / STAMP, json.dumps(_stamp(options), indent=1) + "\n")
    blocks = [range(start, min(start + _BLOCK, options.total)) for start in range(0, options.total, _BLOCK)]
    with progress("synthetic corpus", options.total, "images") as bar:
        for count in in_processes(partial(_draughtsman, root, options), blocks, processes):
            bar.advance(count)
    _write_lists(root, options)


def key(number: int) -> str:
    """Of an entry, as Clothing-1M forms them: the folders are the last three digits of the second number."""
    first, second = 10_000_000 + number * 7919, 1_000_000_000 + number * 104_729
    return f"images/{second // 100 % 10}/{second % 100:02d}/{first},{second}.jpg"


def _stamp(options: SyntheticOptions) -> dict[str, float]:
    return {"drawing": DRAWING, **asdict(options)}


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(path.name + _PART)
    with part.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def _write_lists(root: Path, options: SyntheticOptions) -> None:
    work = plan(options)
    keys = [key(number) for number in range(options.total)]
    train, val = options.images, options.images + options.val_images
    texts: dict[str, list[str]] = {
        "category_names_eng.txt": list(CLASSES),
        "noisy_label_kv.txt": [f"{name} {label}" for name, label in zip(keys[:train], work.given, strict=True)],
        "clean_label_kv.txt": [f"{name} {label}" for name, label in zip(keys, work.true, strict=True)],
        "clean_train_key_list.txt": [],
        "clean_val_key_list.txt": keys[train:val],
        "clean_test_key_list.txt": keys[val:],
        MARKER: keys[:train],
    }
    for name, lines in texts.items():
        _write_whole(root / name, "".join(f"{line}\n" for line in lines))


def _draughtsman(root: Path, options: SyntheticOptions, number: int) -> Callable[[range], int]:
    """What draws a block of entries and says how many they were."""

    def write(block: range) -> int:
        for entry in block:
            data = image_file(entry, options)
            if data is not None:
                path = root / key(entry)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        return len(block)

    return write


def image_file(number: int, options: SyntheticOptions) -> bytes | None:
    """The file of an entry; None where it is missing."""
    work = plan(options)
    original, defect = int(work.picture[number]), work.defects.get(number)
    source = random.Random(f"{options.seed}/{original}")
    studio = source.random() < (STUDIO if original < options.images else STUDIO_OF_TEST)
    picture = draw(CLASSES[work.true[original]], source, side=options.side, studio=studio)
    quality = source.randint(72, 90)
    if defect:
        return _defective(picture, defect)
    if original != number and not work.exact[number]:
        copier = random.Random(f"{options.seed}/{number}")
        picture, quality = _altered(picture, copier), copier.randint(60, 85)
    return _encoded(picture, "JPEG", quality=quality)


def _altered(picture: Image.Image, copier: random.Random) -> Image.Image:
    """What another shop made of the picture: a slightly smaller crop, lighter or darker."""
    left, top, right, bottom = (copier.randint(0, 2) for _ in range(4))
    crop = picture.crop((left, top, picture.width - right, picture.height - bottom))
    return ImageEnhance.Brightness(crop.resize(picture.size)).enhance(copier.uniform(0.88, 1.12))


def _defective(picture: Image.Image, defect: str) -> bytes | None:
    if defect == "missing":
        return None
    if defect == "empty":
        return b""
    if defect == "html":
        return _WEB_PAGE
    if defect == "rgba_png":
        return _encoded(picture.convert("RGBA"), "PNG")
    if defect == "truncated":
        data = _encoded(picture, "JPEG")
        return data[: len(data) * 3 // 5]
    return _encoded(picture.convert({"cmyk": "CMYK", "grayscale": "L"}[defect]), "JPEG")


def _encoded(picture: Image.Image, kind: str, *, quality: int = 80) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=quality)
    return buffer.getvalue()
