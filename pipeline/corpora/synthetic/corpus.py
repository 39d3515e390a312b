"""The embedded demo corpus: drawn garments, written in the layout of Clothing-1M, with every label's truth known."""

import io
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow as pa
from PIL import Image, ImageEnhance

from rhostream.loaders.decode import available_cores
from rhostream.loaders.storage import read_file
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.corpora.clothing1m import Clothing1M
from rhostream.pipeline.corpora.synthetic.drawn_folder import draw_folder, root_of
from rhostream.pipeline.corpora.synthetic.photographs import draw
from rhostream.pipeline.corpora.synthetic.plan import CLASSES, SyntheticOptions, plan

MARKER: Final = "noisy_train_key_list.txt"  # written last: the corpus is complete
DRAWING: Final = 1  # of the pictures; raised when the same options draw others

STUDIO: Final = 0.5  # share of the training pictures that are studio pictures: redundant, soon learnt
STUDIO_OF_TEST: Final = 0.2
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
        self._manifest, self._options, self._root = manifest, options, root_of(manifest, _stamp(options))

    def entries(self) -> Iterator[Entry]:
        write_corpus(self._root, self._options, processes=available_cores())
        yield from Clothing1M(self._manifest, Clothing1M.Options()).entries()

    def read(self, entry: Entry) -> bytes:
        return read_file(self._root / entry.source)


def write_corpus(root: Path, options: SyntheticOptions, *, processes: int) -> None:
    """Draw the corpus unless it is complete, see `draw_folder`."""
    draw_folder(
        root,
        stamp=_stamp(options),
        images=options.total,
        draw=partial(image_file, options=options),
        key=key,
        lists=_lists(options),
        processes=processes,
    )


def key(number: int) -> str:
    """Of an entry, as Clothing-1M forms them: the folders are the last three digits of the second number."""
    first, second = 10_000_000 + number * 7919, 1_000_000_000 + number * 104_729
    return f"images/{second // 100 % 10}/{second % 100:02d}/{first},{second}.jpg"


def _stamp(options: SyntheticOptions) -> dict[str, float]:
    return {"drawing": DRAWING, **asdict(options)}


def _lists(options: SyntheticOptions) -> dict[str, list[str]]:
    """Those of Clothing-1M, by name."""
    work = plan(options)
    keys = [key(number) for number in range(options.total)]
    train, val = options.images, options.images + options.val_images
    return {
        "category_names_eng.txt": list(CLASSES),
        "noisy_label_kv.txt": [f"{name} {label}" for name, label in zip(keys[:train], work.given, strict=True)],
        "clean_label_kv.txt": [f"{name} {label}" for name, label in zip(keys, work.true, strict=True)],
        "clean_train_key_list.txt": [],
        "clean_val_key_list.txt": keys[train:val],
        "clean_test_key_list.txt": keys[val:],
        MARKER: keys[:train],
    }


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
    return encoded(picture, "JPEG", quality=quality)


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
        return encoded(picture.convert("RGBA"), "PNG")
    if defect == "truncated":
        data = encoded(picture, "JPEG")
        return data[: len(data) * 3 // 5]
    return encoded(picture.convert({"cmyk": "CMYK", "grayscale": "L"}[defect]), "JPEG")


def encoded(picture: Image.Image, kind: str, *, quality: int = 80) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=quality)
    return buffer.getvalue()
