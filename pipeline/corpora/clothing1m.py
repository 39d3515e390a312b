"""Clothing-1M as it is distributed: key lists, two files of labels, and images in numbered folders."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rhostream.errors import CorpusError
from rhostream.loaders.storage import UnreadableError, read_csv, read_file
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.corpora.columns import CLEAN_LABEL, CLEAN_LABEL_TYPE
from rhostream.pipeline.corpora.labels import LabelParser
from rhostream.pipeline.corpora.paths import corpus_root

#: What numbers 0 to 13 mean where a copy lacks `category_names_eng.txt`.
CLOTHING1M_CLASSES: Final = (
    "T-Shirt",
    "Shirt",
    "Knitwear",
    "Chiffon",
    "Sweater",
    "Hoodie",
    "Windbreaker",
    "Jacket",
    "Downcoat",
    "Suit",
    "Shawl",
    "Dress",
    "Vest",
    "Underwear",
)

_NAMES = "category_names_eng.txt"
_NOISY_LABELS, _CLEAN_LABELS = "noisy_label_kv.txt", "clean_label_kv.txt"
_NOISY_TRAIN, _CLEAN_TRAIN = "noisy_train_key_list.txt", "clean_train_key_list.txt"
_OFFICIAL: Final = {"clean_test_key_list.txt": "test", "clean_val_key_list.txt": "val"}
_LEADS_OUT_OF_ROOT = r"^/|(^|/)\.\.(/|$)|\x00"

#: Bounds the memory of a listing's Python objects.
_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, kw_only=True)
class Clothing1MOptions:
    """Clothing-1M has none: its layout is found by itself."""


class Clothing1M:
    """Every key of the four lists is an entry, its key (`images/0/00/1,2.jpg`) the source.

    - noisy train: split "train", labeled by the noisy file;
    - clean test and clean val: the official splits "test" and "val", labeled by the clean file;
    - clean train: split "train" with the noisy label where there is one, else refused as `label_clean_only`.

    A training image that also has a clean label keeps it as the extra column `clean_label`. A key that an earlier list
    holds (in the order test, val, noisy train, clean train) is refused as `duplicate_key`. The lists lie at the root or
    under `annotations/`; the images under `images/`, or with that folder cut off.
    """

    Options = Clothing1MOptions
    extra_columns: Mapping[str, pa.DataType] = {CLEAN_LABEL: CLEAN_LABEL_TYPE}

    def __init__(self, manifest: Manifest, options: Clothing1MOptions) -> None:
        self._root = corpus_root(manifest)
        self._lists = _folder_of_lists(self._root)
        required = (_NOISY_LABELS, _CLEAN_LABELS, _CLEAN_TRAIN, *_OFFICIAL)
        absent = [name for name in required if not (self._lists / name).is_file()]
        if absent:
            raise CorpusError(
                f"{self._lists}: {', '.join(absent)} of Clothing-1M not there; copy the text files of "
                "annotations.zip here or under annotations/"
            )
        self.classes = manifest.classes or self._class_names()

    def entries(self) -> Iterator[Entry]:
        noisy = _LabelFile(self._lists / _NOISY_LABELS, self.classes)
        clean = _LabelFile(self._lists / _CLEAN_LABELS, self.classes)
        lists = {name: _read_lines(self._lists / name) for name in (*_OFFICIAL, _CLEAN_TRAIN)}
        lists[_NOISY_TRAIN] = self._noisy_train_keys(noisy.keys, lists)

        order = (*_OFFICIAL, _NOISY_TRAIN, _CLEAN_TRAIN)
        keys = pa.concat_arrays([lists[name] for name in order])
        list_of_row = np.repeat(np.arange(len(order)), [len(lists[name]) for name in order])
        first_row = _rows(keys, keys)
        columns = (
            keys,
            pa.array(list_of_row),
            pa.array(np.where(first_row == np.arange(len(keys)), -1, list_of_row[first_row])),
            pc.match_substring_regex(keys, _LEADS_OUT_OF_ROOT),
            pa.array(noisy.codes(keys)),
            pa.array(clean.codes(keys)),
        )
        for start in range(0, len(keys), _ROWS_AT_ONCE):
            values = (column.slice(start, _ROWS_AT_ONCE).to_pylist() for column in columns)
            for key, in_list, before_in, leads_out, noisy_code, clean_code in zip(*values, strict=True):
                noisy_label, clean_label = noisy.parsed[noisy_code], clean.parsed[clean_code]
                name = order[in_list]
                if leads_out:
                    yield Entry(source=key, reason="missing", detail="the key leads out of the root")
                elif before_in >= 0:
                    yield Entry(
                        source=key, reason="duplicate_key", detail=f"in {name}, and before in {order[before_in]}"
                    )
                elif name in _OFFICIAL:
                    yield _entry(key, _OFFICIAL[name], clean_label)
                elif name == _CLEAN_TRAIN and noisy_label.reason == "label_missing" and clean_label.index is not None:
                    yield Entry(source=key, reason="label_clean_only", detail=noisy_label.detail)
                else:
                    yield _entry(key, "train", noisy_label, clean_label.index)

    def read(self, entry: Entry) -> bytes:
        try:
            return read_file(self._root / entry.source)
        except FileNotFoundError:
            # The layout with 0 to 9 directly under the root, which has lost the leading folder of every key.
            return read_file(self._root / entry.source.removeprefix("images/"))

    def _class_names(self) -> tuple[str, ...]:
        path = self._lists / _NAMES
        return tuple(_read_lines(path).to_pylist()) if path.is_file() else CLOTHING1M_CLASSES

    def _noisy_train_keys(self, labeled: pa.StringArray, clean_lists: Mapping[str, pa.StringArray]) -> pa.StringArray:
        """The noisy training list; in a copy without it, every key with a noisy label that no clean list has."""
        path = self._lists / _NOISY_TRAIN
        if path.is_file():
            return _read_lines(path)
        return labeled.filter(pc.invert(pc.is_in(labeled, value_set=pa.concat_arrays(list(clean_lists.values())))))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Label:
    index: int | None
    reason: str
    detail: str


class _LabelFile:
    """A `*_label_kv.txt`: lines of key, one space and label number. It fills one table, never that of another file."""

    def __init__(self, path: Path, classes: tuple[str, ...]) -> None:
        lines = _read_lines(path)
        fields = pc.extract_regex(lines, r"^(?P<key>.*\S)\s+(?P<label>\S+)$")
        has_label = fields.is_valid()
        self.keys: pa.StringArray = pc.if_else(has_label, pc.struct_field(fields, "key"), lines)
        labels = pc.if_else(has_label, pc.struct_field(fields, "label"), "").dictionary_encode()
        self._code_of_line: npt.NDArray[np.int32] = labels.indices.to_numpy()
        parser = LabelParser(classes)
        results = (parser.parse(text) for text in labels.dictionary.to_pylist())
        #: The distinct labels; the last one is that of a key without a line.
        self.parsed = [
            *(_Label(index=index, reason=reason, detail=f"{path.name}: {detail}") for index, reason, detail in results),
            _Label(index=None, reason="label_missing", detail=f"not in {path.name}"),
        ]

    def codes(self, keys: pa.StringArray) -> npt.NDArray[np.int32]:
        """Each key's place in `parsed`: int32 (len(keys),)."""
        lines = _rows(keys, self.keys)
        if not len(self.keys):
            return lines
        return np.where(lines < 0, len(self.parsed) - 1, self._code_of_line[lines])


def _rows(keys: pa.StringArray, among: pa.StringArray) -> npt.NDArray[np.int32]:
    """Where each key is first found `among` others, -1 for nowhere: int32 (len(keys),)."""
    rows: npt.NDArray[np.int32] = pc.index_in(keys, value_set=among).fill_null(-1).to_numpy()
    return rows


def _entry(key: str, split: str, label: _Label, clean_label: int | None = None) -> Entry:
    extra = {} if clean_label is None else {CLEAN_LABEL: clean_label}
    return Entry(
        source=key,
        split=split,
        label=label.index,
        reason=label.reason,
        detail=label.detail if label.reason else "",
        extra=extra,
    )


def _read_lines(path: Path) -> pa.StringArray:
    """The lines of a text file without surrounding space; blank ones left out."""
    if not path.stat().st_size:
        return pa.array([], pa.string())
    try:
        table = read_csv(
            path,
            # One column, and a delimiter that no text file has: the lines stay whole.
            pa.csv.ParseOptions(delimiter="\x1f", quote_char=False),
            pa.csv.ConvertOptions(column_types={"line": pa.string()}),
            pa.csv.ReadOptions(column_names=["line"]),
        )
    except UnreadableError as error:
        raise CorpusError(f"{path} is not a text file in UTF-8 ({error}); copy it again") from error
    lines = pc.utf8_trim_whitespace(table["line"].combine_chunks())
    return lines.filter(pc.not_equal(lines, ""))


def _folder_of_lists(root: Path) -> Path:
    """Where the text files lie.

    Raises:
        CorpusError: nowhere; the message tells what to do.
    """
    for folder in (root, root / "annotations"):
        if any((folder / name).is_file() for name in (_NOISY_LABELS, _CLEAN_LABELS, _NOISY_TRAIN, _CLEAN_TRAIN)):
            return folder
    if any((root / name).is_dir() for name in ("clean_train", "noisy_train")):
        raise CorpusError(
            f"{root} has folders of Clothing-1M images and no text files: use format imagefolder, with "
            "each of these folders as a split"
        )
    raise CorpusError(
        f"{root} has no {_NOISY_LABELS}, nor has its annotations/: this is not Clothing-1M; pass the "
        "folder that holds the text files as --root"
    )
