"""Samples that Python code gives one by one, as a corpus: what `write_shards(samples=…)` reads."""

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
from PIL import Image

from rhostream.errors import ConfigError
from rhostream.loaders.storage import open_file, read_file
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.corpora.columns import CLEAN_LABEL, CLEAN_LABEL_TYPE, index_columns
from rhostream.pipeline.corpora.encoded import png_of
from rhostream.pipeline.corpora.labels import derive_classes, label_parser, label_texts
from rhostream.pipeline.corpora.splits import official_split
from rhostream.pipeline.jobs import progress

#: (key, image, label), (key, image, label, split), or a mapping of these names and of further columns.
Sample = tuple[Any, ...] | Mapping[str, Any]
Samples = Iterable[Sample] | Callable[[], Iterable[Sample]]

#: What a manifest calls the format of a corpus that was none in files.
SAMPLES_FORMAT: Final = "samples"

_NAMES: Final = ("key", "image", "label", "split")
_NEEDED: Final = ("key", "image", "label")
_TYPES: Final = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
_NUMBERS: Final = {pa.int64(), pa.float64()}


class SampleCorpus:
    """Every sample is an entry, its key the source.

    The samples are gone through once, here. Images that are no files yet are kept in a folder, one after the other; so
    is the rest of each sample, as a line of JSON: none of them stays in memory.

    Args:
        samples: see `rhostream.pipeline.shards.write_shards`.
        folder: an empty one, which stays until nothing more is read.
        keep: the images; without them nothing can be read.

    Raises:
        ConfigError: what is no sample, with its number. Whatever `samples` itself raises is raised as it is.
    """

    def __init__(self, samples: Samples, manifest: Manifest, folder: Path, *, keep: bool = True) -> None:
        self._task, self._images, self._rows = manifest.task, folder / "images", folder / "samples.jsonl"
        texts: set[str | None] = set()
        kinds: dict[str, pa.DataType | None] = {}
        with (
            self._images.open("wb") as images,
            self._rows.open("w", encoding="utf-8") as rows,
            progress("samples", len(samples) if isinstance(samples, Sized) else None, "samples") as bar,
        ):
            for number, sample in enumerate(samples() if callable(samples) else samples):
                row = _row(sample, number)
                row["image"] = _kept(row["image"], images if keep else None, number)
                for name, value in row["extra"].items():
                    _add_type(kinds, name, value, number)
                if not manifest.classes:
                    texts.update(label_texts(row["label"], self._task, ""))
                rows.write(json.dumps(row) + "\n")
                bar.advance()
        self._columns = index_columns(kinds, self._task, "the samples")
        self.extra_columns: Mapping[str, pa.DataType] = {
            kept: CLEAN_LABEL_TYPE if kept == CLEAN_LABEL else kinds[name] or pa.string()
            for name, kept in self._columns.items()
        }
        self.classes = manifest.classes or derive_classes(texts, "the samples")

    def entries(self) -> Iterator[Entry]:
        parser = label_parser(self.classes, self._task, "")
        with self._rows.open(encoding="utf-8") as rows:
            for row in map(json.loads, rows):
                label, reason, detail = parser.parse(row["label"])
                extra = {self._columns[name]: value for name, value in row["extra"].items()}
                if CLEAN_LABEL in extra:
                    extra[CLEAN_LABEL] = parser.parse(extra[CLEAN_LABEL])[0]
                yield Entry(
                    source=row["key"],
                    key=row["key"],
                    split=row["split"],
                    label=label,
                    reason=reason,
                    detail=detail,
                    extra=extra,
                    locator=tuple(row["image"]),
                )

    def read(self, entry: Entry) -> bytes:
        if not entry.locator:
            raise FileNotFoundError(errno.ENOENT, "its image is None")
        if len(entry.locator) == 1:
            return read_file(entry.locator[0])
        offset, size = entry.locator
        with open_file(self._images) as images:
            return os.pread(images.fileno(), size, offset)


def _row(sample: Any, number: int) -> dict[str, Any]:
    """Key, image, label, split and extra values, of which all but the image are JSON values."""
    if isinstance(sample, tuple) and len(sample) in (len(_NEEDED), len(_NAMES)):
        sample = dict(zip(_NAMES, sample, strict=False))
    if not isinstance(sample, Mapping):
        raise ConfigError(
            f"sample {number} is of type {type(sample).__name__}: give (key, image, label), (key, image, label, "
            "split), or a mapping of these names and of further columns"
        )
    if missing := [name for name in _NEEDED if name not in sample]:
        names = ", ".join(map(str, sample))
        raise ConfigError(
            f"sample {number} has no {missing[0]!r}, only {names}: give key, image, label and perhaps split"
        )
    key = _plain(sample["key"])
    if not isinstance(key, (str, int)) or isinstance(key, bool) or key == "":
        raise ConfigError(f"sample {number} has the key {key!r}: give each a text or number of its own")
    split = sample.get("split") or None
    if split is not None and official_split(str(split)) is None:
        raise ConfigError(f"sample {number} has the split {split!r}: give train, val or test, or None for the hash")
    return {
        "key": str(key),
        "image": sample["image"],
        "label": _label(sample["label"]),
        "split": official_split(str(split)) if split else None,
        "extra": {str(name): _flat(_plain(value)) for name, value in sample.items() if name not in _NAMES},
    }


def _kept(image: Any, images: IO[bytes] | None, number: int) -> list[Any]:
    """Where the image can be read: its path, or place and size in the file of the images; nothing of None."""
    if isinstance(image, Mapping):  # as `datasets` gives an image that it does not decode
        image = image.get("bytes") if image.get("bytes") is not None else image.get("path")
    if image is None:
        return []
    if isinstance(image, (str, os.PathLike)):
        return [os.path.abspath(os.fspath(image))]  # noqa: PTH100 - the working directory may change
    if isinstance(image, Image.Image):
        image = png_of(image) if images is not None else b""
    if not isinstance(image, (bytes, bytearray, memoryview)):
        raise ConfigError(
            f"sample {number} has an image of type {type(image).__name__}: give a file's bytes, its path, or a PIL "
            "image"
        )
    place = 0 if images is None else images.tell()
    if images is not None:
        images.write(image)
    return [place, len(image)]


def _label(value: Any) -> Any:
    """A JSON value, or a list of them."""
    value = _plain(value)
    if isinstance(value, (list, tuple)):
        return [_flat(_plain(item)) for item in value]
    return sorted(map(_label, value), key=str) if isinstance(value, (set, frozenset)) else _flat(value)


def _plain(value: Any) -> Any:
    """A number of NumPy's or torch's as Python's; lists of those, too."""
    return value.tolist() if hasattr(value, "tolist") else value


def _flat(value: Any) -> Any:
    """As the index keeps it: nested values as JSON text, all else that is no number as text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple, Mapping)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _add_type(kinds: dict[str, pa.DataType | None], name: str, value: Any, number: int) -> None:
    """The type of an extra column, so far."""
    kind, known = _TYPES.get(type(value)), kinds.setdefault(name, None)
    if kind is None or known is None or kind == known:
        kinds[name] = known if kind is None else kind
    elif {kind, known} <= _NUMBERS:
        kinds[name] = pa.float64()
    else:
        raise ConfigError(f"sample {number}: {name} is {kind}, and was {known} before: give values of one type")
