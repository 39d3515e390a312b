"""Tables of paths and labels: CSV, TSV and Parquet."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.corpora import by_source, corpus, labels, reasons
from helpers.support import jpeg, needs_shared, put, unpack

from rhostream.errors import ConfigError, CorpusError


def test_every_row_is_an_entry_other_columns_keep_their_types(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg", jpeg())
    rows = 'path,label,writer,score,day,width,note\na.jpg,dog,7,0.5,2024-01-31,640,\nb.jpg,cat,,,,,"two\nlines, NA"\n'
    put(tmp_path / "labels.csv", rows)
    reader = corpus("table", tmp_path)
    assert reader.classes == ("cat", "dog")
    assert {name: str(kind) for name, kind in reader.extra_columns.items()} == {
        "writer": "int64",
        "score": "double",
        "day": "date32[day]",
        "width_given": "int64",  # the index has a column width of its own
        "note": "string",
    }
    first, second = reader.entries()
    assert (first.source, first.label) == ("a.jpg", 1)
    assert dict(first.extra) == {"writer": 7, "score": 0.5, "day": date(2024, 1, 31), "width_given": 640, "note": None}
    assert second.extra["note"] == "two\nlines, NA"
    assert second.extra["writer"] is None
    assert reader.read(first) == jpeg()
    with pytest.raises(FileNotFoundError):
        reader.read(second)


def test_tsv_and_parquet_hold_the_same_entries_as_csv(tmp_path: Path) -> None:
    table = pa.table({"path": ["1.jpg", "2.jpg", "3.jpg"], "label": [10, None, 9], "fold": [1, 2, 3]})
    put(tmp_path / "csv" / "labels.csv", "path,label,fold\n1.jpg,10,1\n2.jpg,,2\n3.jpg,9,3\n")
    put(tmp_path / "tsv" / "any.tsv", "path\tlabel\tfold\n1.jpg\t10\t1\n2.jpg\t\t2\n3.jpg\t9\t3\n")
    (tmp_path / "parquet").mkdir()
    pq.write_table(table, tmp_path / "parquet" / "any.parquet")
    (tmp_path / "split").mkdir()
    pq.write_table(table.slice(0, 2), tmp_path / "split" / "part-0.parquet")
    pq.write_table(table.slice(2), tmp_path / "split" / "part-1.parquet")
    expected = list(corpus("table", tmp_path / "csv").entries())
    assert [entry.label for entry in expected] == [1, None, 0]  # 9 before 10
    assert list(corpus("table", tmp_path / "tsv").entries()) == expected
    assert list(corpus("table", tmp_path / "parquet").entries()) == expected
    assert list(corpus("table", tmp_path / "split", file="part-*.parquet").entries()) == expected
    assert list(corpus("table", tmp_path / "csv" / "labels.csv").entries()) == expected


def test_bad_labels_are_refused_with_their_reason(tmp_path: Path) -> None:
    put(tmp_path / "labels.csv", "path,label\n1,cat\n2,1\n3,\n4,cow\n5,2\n6,NA\n007,1.0\n")
    assert labels(corpus("table", tmp_path, classes=("cat", "dog"))) == {
        "1": 0,
        "2": 1,
        "3": "label_missing",
        "4": "label_unknown",
        "5": "label_out_of_range",
        "6": "label_unknown",  # "NA" is a name, only an empty cell is no label
        "007": 1,
    }


def test_paths_leading_out_of_the_images_are_refused_as_missing(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    put(root / "photos" / "a.jpg", jpeg())
    put(tmp_path / "secret.jpg", jpeg(1))
    inside, outside = root / "photos" / "a.jpg", tmp_path / "secret.jpg"
    put(root / "labels.csv", f"path,label\n./x/../a.jpg,0\n../../secret.jpg,0\n{outside},0\n,0\n{inside},0\n")
    reader = corpus("table", root, image_root="photos")
    listed = list(reader.entries())
    assert [(entry.source, entry.reason) for entry in listed] == [
        ("a.jpg", ""),
        ("../../secret.jpg", "missing"),
        (str(outside), "missing"),
        ("labels.csv:4", "missing"),
        ("a.jpg", ""),  # the same file twice: one source, so that one of the two is refused by its key
    ]
    assert "leads out of the images' folder" in listed[1].detail
    assert reader.read(listed[0]) == jpeg()


def test_official_splits_come_from_a_column(tmp_path: Path) -> None:
    put(tmp_path / "labels.csv", "path,label,part\na,0,train\nb,0,Validation\nc,0,\nd,0,kept for validation\n")
    found = by_source(corpus("table", tmp_path, split_column="part", splits={"kept for validation": "test"}))
    assert {name: entry.split for name, entry in found.items()} == {"a": "train", "b": "val", "c": None, "d": "test"}
    with pytest.raises(
        CorpusError, match=r"row 4 of .*labels.csv: part = 'kept for validation' is no known split; say which"
    ):
        list(corpus("table", tmp_path, split_column="part").entries())


def test_a_clean_label_column_becomes_class_numbers(tmp_path: Path) -> None:
    put(tmp_path / "labels.csv", "path,label,clean_label\na,cat,dog\nb,dog,\nc,cat,cow\n")
    reader = corpus("table", tmp_path)
    assert reader.extra_columns == {"clean_label": pa.int32()}
    assert [entry.extra["clean_label"] for entry in reader.entries()] == [1, None, None]


def test_nested_dictionary_and_nanosecond_columns_become_flat(tmp_path: Path) -> None:
    table = pa.table(
        {
            "path": ["a"],
            "label": pa.array(["x"]).dictionary_encode(),
            "tags": [["new", "caf\u00e9"]],
            "shop": pa.array(["s"]).dictionary_encode(),
            "time": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
            "empty": pa.nulls(1),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    reader = corpus("table", tmp_path)
    assert reader.extra_columns == {
        "tags": pa.string(),
        "shop": pa.string(),
        "time": pa.timestamp("us"),
        "empty": pa.string(),
    }
    (entry,) = reader.entries()
    assert entry.extra["tags"] == '["new", "caf\u00e9"]'
    assert entry.extra["time"].microsecond == 123456


def test_extra_columns_can_be_chosen_and_clashes_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "labels.csv", "path,label,a,b,size,size_given\nx,0,1,2,3,4\n")
    assert list(corpus("table", tmp_path, extra=["b"]).extra_columns) == ["b"]
    assert list(corpus("table", tmp_path, extra=[]).extra_columns) == []
    with pytest.raises(ConfigError, match="two columns would be 'size_given' in the index"):
        corpus("table", tmp_path)


def test_tables_that_cannot_be_read_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"has no labels\.csv, \*\.csv"):
        corpus("table", tmp_path)
    put(tmp_path / "one.csv", "file,label\na,0\n")
    with pytest.raises(CorpusError, match=r"one.csv has no column 'path', only file, label: set path_column"):
        corpus("table", tmp_path)
    put(tmp_path / "two.csv", "file,label\na,0,1\n")
    with pytest.raises(CorpusError, match=r"has several tables \(one.csv, two.csv\): choose"):
        corpus("table", tmp_path)
    with pytest.raises(CorpusError, match=r"two.csv cannot be read as CSV .*Expected 2 columns, got 3"):
        corpus("table", tmp_path, file="two.csv", path_column="file")
    put(tmp_path / "three.csv", b"file,label\na,caf\xe9\n")
    with pytest.raises(CorpusError, match=r"three.csv cannot be read as CSV .*write the file again in UTF-8"):
        corpus("table", tmp_path, file="three.csv", path_column="file")
    put(tmp_path / "four.parquet", b"PAR?")
    with pytest.raises(CorpusError, match=r"four.parquet cannot be read as PARQUET"):
        corpus("table", tmp_path, file="four.parquet")
    put(tmp_path / "five.csv", "path,label,label\na,0,1\n")
    with pytest.raises(CorpusError, match="two columns of one name"):
        corpus("table", tmp_path, file="five.csv")


@needs_shared
def test_real_table_with_its_irregularities() -> None:
    reader = corpus("table", unpack("clothing"), split_column="small_split")
    entries = by_source(reader)
    assert reasons(reader) == {"": 5403, "label_missing": 358}
    assert len(reader.classes) == 20
    assert sum(entry.split == "test" for entry in entries.values()) == 372
    assert reader.extra_columns["orig_phash"] == pa.string()
    first = entries["images/00003aeb-ace5-43bf-9a0c-dc31a03e9cd2.jpg"]
    assert first.extra["sender_id"] == 322
    assert first.extra["source_given"] == "alexeygrigorev/clothing-dataset"
    lost = [entry.source for entry in entries.values() if not (unpack("clothing") / entry.source).exists()]
    assert len(lost) == 5
    assert reasons(corpus("table", unpack("dirty"))) == {"": 56, "label_missing": 1}
