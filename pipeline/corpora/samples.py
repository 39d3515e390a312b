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
from rhostream.pipeline.config import Manifest, TaskName
from rhostream.pipeline.corpora.base import Entry, Label
from rhostream.pipeline.corpora.captions import parse_caption
from rhostream.pipeline.corpora.columns import CLEAN_LABEL, CLEAN_LABEL_TYPE, index_columns
from rhostream.pipeline.corpora.encoded import png_of
from rhostream.pipeline.corpora.labels import derive_classes, label_parser, label_texts
from rhostream.pipeline.corpora.splits import official_split
from rhostream.pipeline.jobs import progress

#: Of pairs the caption, `text`, in the place of the label:
#: (key, image, label), (key, image, label, split), or a mapping of these names and of further columns.
Sample = tuple[Any, ...] | Mapping[str, Any]
Samples = Iterable[Sample] | Callable[[], Iterable[Sample]]

#: What a manifest calls the format of a corpus that was none in files.
SAMPLES_FORMAT: Final = "samples"

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
        self._max_text_bytes = manifest.max_text_bytes
        self.fields = ("image", "text") if manifest.task == "pairs" else ("image",)
        self._task, self._images, self._rows = manifest.task, folder / "images", folder / "samples.jsonl"
        texts: set[str | None] = set()
        kinds: dict[str, pa.DataType | None] = {}
        with (
            self._images.open("wb") as images,
            self._rows.open("w", encoding="utf-8") as rows,
            progress("samples", len(samples) if isinstance(samples, Sized) else None, "samples") as bar,
        ):
            for number, sample in enumerate(samples() if callable(samples) else samples):
                row = _row(sample, number, self._task)
                row["image"] = _kept(row["image"], images if keep else None, number)
                for name, value in row["extra"].items():
                    _add_type(kinds, name, value, number)
                if not manifest.classes and self._task != "pairs":
                    texts.update(label_texts(row["label"], self._task, ""))
                rows.write(json.dumps(row) + "\n")
                bar.advance()
        self._columns = index_columns(kinds, self._task, "the samples")
        self.extra_columns: Mapping[str, pa.DataType] = {
            kept: CLEAN_LABEL_TYPE if kept == CLEAN_LABEL else kinds[name] or pa.string()
            for name, kept in self._columns.items()
        }
        self.classes = manifest.classes or (() if self._task == "pairs" else derive_classes(texts, "the samples"))

    def entries(self) -> Iterator[Entry]:
        parser = label_parser(self.classes, self._task, "")
        with self._rows.open(encoding="utf-8") as rows:
            for row in map(json.loads, rows):
                label: Label | None
                text = None
                if self._task == "pairs":
                    text, reason, detail = parse_caption(row["text"], self._max_text_bytes)
                    label = None if text is None else ()
                else:
                    label, reason, detail = parser.parse(row["label"])
                extra = {self._columns[name]: value for name, value in row["extra"].items()}
                if CLEAN_LABEL in extra:
                    extra[CLEAN_LABEL] = parser.parse(extra[CLEAN_LABEL])[0]
                yield Entry(
                    source=row["key"],
                    key=row["key"],
                    split=row["split"],
                    label=label,
                    text=text,
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


def _row(sample: Any, number: int, task: TaskName) -> dict[str, Any]:
    """Key, image, label or caption, split and extra values, of which all but the image are JSON values."""
    told = "text" if task == "pairs" else "label"
    needed = ("key", "image", told)
    names = (*needed, "split")
    if isinstance(sample, tuple) and len(sample) in (len(needed), len(names)):
        sample = dict(zip(names, sample, strict=False))
    if not isinstance(sample, Mapping):
        raise ConfigError(
            f"sample {number} is of type {type(sample).__name__}: give (key, image, {told}), (key, image, {told}, "
            "split), or a mapping of these names and of further columns"
        )
    if missing := [name for name in needed if name not in sample]:
        given = ", ".join(map(str, sample))
        raise ConfigError(
            f"sample {number} has no {missing[0]!r}, only {given}: give key, image, {told} and perhaps split"
        )
    key = _plain(sample["key"])
    if not isinstance(key, (str, int)) or isinstance(key, bool) or key == "":
        raise ConfigError(f"sample {number} has the key {key!r}: give each a text or number of its own")
    split = sample.get("split") or None
    if split is not None and official_split(str(split)) is None:
        raise ConfigError(
            f"sample {number} has the split {split!r}: give train, holdout, val or test, or None for the hash"
        )
    return {
        "key": str(key),
        "image": sample["image"],
        told: _caption(sample["text"], number) if task == "pairs" else _label(sample["label"]),
        "split": official_split(str(split)) if split else None,
        "extra": {str(name): _flat(_plain(value)) for name, value in sample.items() if name not in names},
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


def _caption(value: Any, number: int) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"sample {number} has a caption of type {type(value).__name__}: give a text, or None")
    return value


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
