"""ImageFolder of Hugging Face's package: folders of images with a metadata file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.corpora import by_source, corpus, labels
from helpers.support import jpeg, put

from rhostream.errors import CorpusError
from rhostream.pipeline.config.manifest import Manifest
from rhostream.pipeline.corpora.formats import open_corpus
from rhostream.pipeline.shards.write import write_shards

ROWS = [
    {"file_name": "0.jpg", "label": "cat", "caption": "one"},
    {"file_name": "below/1.jpg", "label": "dog", "caption": None},
    {"file_name": "2.jpg", "label": None, "caption": "three"},
    {"file_name": "../../3.jpg", "label": "dog", "caption": "four"},
]


def write_metadata(folder: Path, kind: str, rows: Sequence[Mapping[str, object]] = ROWS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), folder / "metadata.parquet")
    elif kind == "jsonl":
        put(folder / "metadata.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        lines = [",".join(rows[0]), *(",".join(str(value or "") for value in row.values()) for row in rows)]
        put(folder / "metadata.csv", "\n".join(lines))
    return folder


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_rows_of_the_metadata_are_entries_with_their_columns(kind: str, tmp_path: Path) -> None:
    folder = write_metadata(tmp_path / "train", kind)
    put(folder / "0.jpg", jpeg())
    put(folder / "README.md", "")
    put(folder / "below" / "other.png", jpeg())
    reader = corpus("hf_imagefolder", tmp_path)
    assert reader.classes == ("cat", "dog")
    assert labels(reader) == {
        "train/0.jpg": 0,
        "train/below/1.jpg": 1,
        "train/2.jpg": "label_missing",
        "train/../../3.jpg": "missing",
        "train/below/other.png": "label_missing",
    }
    found = by_source(reader)
    assert {entry.split for entry in found.values()} == {"train"}
    assert found["train/0.jpg"].extra == {"caption": "one"}
    assert found["train/below/other.png"].detail == "no row of a metadata file names it"
    assert reader.read(found["train/0.jpg"]) == jpeg()
    with pytest.raises(FileNotFoundError):
        reader.read(found["train/below/1.jpg"])


def test_each_split_and_class_folder_may_have_its_metadata(tmp_path: Path) -> None:
    write_metadata(tmp_path / "train" / "cats", "csv", [{"file_name": "a.jpg", "label": "cat", "width": "1"}])
    write_metadata(tmp_path / "train" / "dogs", "csv", [{"file_name": "a.jpg", "label": "dog", "width": "1.5"}])
    write_metadata(tmp_path / "validation", "csv", [{"file_name": "b.jpg", "label": "", "width": "2"}])
    reader = corpus("hf_imagefolder", tmp_path)
    assert dict(reader.extra_columns) == {"width_given": pa.float64()}
    found = by_source(reader)
    assert {source: (entry.split, entry.label) for source, entry in found.items()} == {
        "train/cats/a.jpg": ("train", 0),
        "train/dogs/a.jpg": ("train", 1),
        "validation/b.jpg": ("val", None),
    }


def test_one_metadata_file_in_the_root_has_no_split(tmp_path: Path) -> None:
    write_metadata(
        tmp_path, "jsonl", [{"file_name": "train/a.jpg", "label": "1"}, {"file_name": "b.jpg", "label": "0"}]
    )
    put(tmp_path / "train" / "a.jpg", jpeg())
    put(tmp_path / "photos" / "c.jpg", jpeg())
    found = by_source(corpus("hf_imagefolder", tmp_path))
    assert {source: (entry.split, entry.label) for source, entry in found.items()} == {
        "train/a.jpg": (None, 1),
        "b.jpg": (None, 0),
        "photos/c.jpg": (None, None),
    }


def test_lists_and_columns_of_classes_are_multi_label(tmp_path: Path) -> None:
    write_metadata(tmp_path / "l", "jsonl", [{"file_name": "a.jpg", "tags": ["hat", "coat"]}])
    write_metadata(tmp_path / "c", "csv", [{"file_name": "a.jpg", "hat": "1", "coat": "0"}])
    for name, options, classes, label in (
        ("l", {"label_column": "tags"}, ("coat", "hat"), (0, 1)),
        ("c", {"class_columns": ["hat", "coat"]}, ("hat", "coat"), (0,)),
    ):
        root, kind = str(tmp_path / name), "hf_imagefolder"
        reader = open_corpus(Manifest(name="t", format=kind, root=root, task="multi_label", options=options))
        assert reader.classes == classes
        assert [entry.label for entry in reader.entries()] == [label]


def test_folders_that_are_no_such_corpus_are_told_apart(tmp_path: Path) -> None:
    put(tmp_path / "plain" / "cat" / "a.jpg", jpeg())
    with pytest.raises(
        CorpusError, match=r"has no metadata\.csv.*: folders named for classes are read by format image"
    ):
        corpus("hf_imagefolder", tmp_path / "plain")
    both = write_metadata(write_metadata(tmp_path / "both", "csv"), "jsonl")
    with pytest.raises(CorpusError, match=r"both has metadata\.csv and metadata\.jsonl: leave one of them there"):
        corpus("hf_imagefolder", both)
    other = write_metadata(tmp_path / "other", "csv", [{"name": "a.jpg", "label": "cat"}])
    with pytest.raises(
        CorpusError, match=r"metadata\.csv has no column 'file_name', only name, label: set path_column"
    ):
        corpus("hf_imagefolder", other)


def test_shards_count_every_row_and_every_image(tmp_path: Path) -> None:
    rows = [{"file_name": f"{n}.jpg", "label": "cat" if n % 2 else "dog"} for n in range(12)]
    folder = write_metadata(tmp_path / "d" / "train", "csv", rows)
    for number in range(1, 14):
        put(folder / f"{number}.jpg", jpeg(number))
    manifest = Manifest(name="t", format="hf_imagefolder", root=str(tmp_path / "d"), holdout=0.4)
    summary = write_shards(str(tmp_path / "w"), manifest, workers=0)
    assert (summary.entries, sum(summary.samples.values())) == (14, 11)
    assert summary.rejects == {"label_missing": 2, "missing": 1}
