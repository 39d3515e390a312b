"""WebDataset tars written by others: tiny ones with every irregularity, and real ones by img2dataset."""

import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from helpers.corpora import by_source, corpus, labels, reasons
from helpers.foreign_tars import DAMAGES, damaged, sample, tar
from helpers.support import SHARED, jpeg, needs_shared, png
from webdataset.tariterators import base_plus_ext

from rhostream.errors import ConfigError, CorpusError
from rhostream.pipeline.corpora.tars.samples import _key_and_extension


def test_samples_are_read_by_their_byte_range(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", *sample("000", "1", 1), *sample("001", "0", 2))
    tar(tmp_path / "sub" / "b.tar", *sample("002", "1", 3))
    reader = corpus("webdataset", tmp_path)
    assert reader.classes == ("0", "1")
    assert labels(reader) == {"a.tar/000": 1, "a.tar/001": 0, "sub/b.tar/002": 1}
    assert [entry.key for entry in reader.entries()] == ["000", "001", "002"]
    assert [reader.read(entry) for entry in reader.entries()] == [jpeg(1), jpeg(2), jpeg(3)]


def test_keys_and_samples_are_those_of_webdataset(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "a.tar",
        ("n01/x.y/000.seg.png", png(5)),  # the key ends at the first dot of the file's own name
        ("n01/x.y/000.cls", b"1"),  # members in any order
        ("n01/x.y/000.JPG", jpeg(6)),
        ("n01/001.jpg", jpeg(7)),
        ("n01/001.cls", b"0"),
        ("n01/._001.jpg", b"Mac"),
        ("README", b"no sample"),
        ("./002.jpg", jpeg(8)),
        ("./002.cls", b"0"),
        (f"{'long/' * 40}003.jpg", jpeg(9)),
        (f"{'long/' * 40}003.cls", b"1"),
        ("\u00fcber.jpg", jpeg(9)),
        ("\u00fcber.cls", b"1"),
    )
    # A hidden file is a sample named after its folder to them, and none to us.
    items = webdataset.WebDataset(str(path), shardshuffle=False)
    theirs = {item["__key__"]: item for item in items if item["__key__"] != "n01/"}
    reader = corpus("webdataset", tmp_path)
    ours = {entry.key: entry for entry in reader.entries()}
    assert {key.removeprefix("./") for key in theirs} == set(ours)
    for key, item in theirs.items():
        entry = ours[key.removeprefix("./")]
        assert entry.label == int(item["cls"])
        assert reader.read(entry) == item["jpg"]


NAMES_READ_ALIKE = ["a.jpg", "A.JPG", "d/a.seg.png", "d.x/a.jpg", "d.x/a", "a", ".a.jpg", "d/e.f/a.b.c", "__m__.json"]
#: Member, then key and extension to webdataset and to us: a leading "./" does not count, a file with a dot in front
#: (macOS leaves "._a.jpg" beside each) or without an extension is of no sample.
NAMES_READ_OTHERWISE = [
    ("./a.jpg", ("./a", "jpg"), ("a", "jpg")),
    ("d/._a.jpg", ("d/", "_a.jpg"), ("", "")),
    ("d/a.", ("d/a", ""), ("", "")),
]


@pytest.mark.parametrize("name", NAMES_READ_ALIKE)
def test_odd_names_have_the_key_that_webdataset_gives(name: str) -> None:
    key, extension = base_plus_ext(name)
    assert _key_and_extension(name) == (key or "", (extension or "").lower())


@pytest.mark.parametrize(("name", "theirs", "ours"), NAMES_READ_OTHERWISE)
def test_names_of_these_kinds_are_read_our_own_way(name: str, theirs: tuple[str, str], ours: tuple[str, str]) -> None:
    assert (base_plus_ext(name), _key_and_extension(name)) == (theirs, ours)


def test_files_about_the_tar_are_of_no_sample(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", *sample("0", "1"), *sample("__meta__/1", "0"), ("__index__", b"{}"))
    assert [item["__key__"] for item in webdataset.WebDataset(str(path), shardshuffle=False)] == ["0"]
    assert labels(corpus("webdataset", tmp_path, classes=("0", "1"))) == {
        "a.tar/0": 1,
        "a.tar/__meta__/1.jpg": "missing",
    }


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_incomplete_samples_are_refused_and_none_is_lost(tmp_path: Path, kind: int) -> None:
    tar(
        tmp_path / "a.tar",
        ("0.jpg", jpeg()),
        ("1.cls", b"1"),
        ("2.jpg", jpeg()),
        ("2.cls", b" 7\n"),
        ("3.jpg", jpeg()),
        ("3.cls", b"cow"),
        ("4.jpg", jpeg()),
        ("4.cls", b"dog"),
        ("4.pyd", b"cos\nsystem\n"),
        ("5.cls", b"0"),
        ("5.mp4", b"film"),
        kind=kind,
    )
    reader = corpus("webdataset", tmp_path, classes=("cat", "dog"))
    assert labels(reader) == {
        "a.tar/0": "label_missing",
        "a.tar/1": "missing",
        "a.tar/2": "label_out_of_range",
        "a.tar/3": "label_unknown",
        "a.tar/4": 1,
        "a.tar/5": "missing",
    }
    assert by_source(reader)["a.tar/5"].detail == "no image among its members cls, mp4"


def test_equal_keys_within_or_across_tars_stay_two_entries(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", *sample("000", "0"), *sample("001", "0"), *sample("001", "1"))
    tar(tmp_path / "b.tar", *sample("000", "1"))
    listed = [(entry.source, entry.key, entry.label) for entry in corpus("webdataset", tmp_path).entries()]
    assert listed == [
        ("a.tar/000", "000", 0),
        ("a.tar/001", "001", 0),
        ("a.tar/001", "001", 1),
        ("b.tar/000", "000", 1),
    ]


def test_label_and_extra_columns_from_json_and_text(tmp_path: Path) -> None:
    fields = {"label": "dog", "sender": 12, "tags": ["a"], "key": "k"}
    tar(
        tmp_path / "a.tar",
        ("0.jpg", jpeg()),
        ("0.json", json.dumps(fields).encode()),
        ("0.txt", "schön".encode()),
        ("1.jpg", jpeg()),
        ("1.json", b"{broken"),
        ("2.jpg", jpeg()),
        ("2.json", b'["label"]'),
    )
    reader = corpus("webdataset", tmp_path, label="json.label", extra=["sender", "tags", "txt", "key"])
    assert labels(reader) == {"a.tar/0": 0, "a.tar/1": "label_missing", "a.tar/2": "label_missing"}
    expected = {"sender": "12", "tags": '["a"]', "txt": "schön", "key_given": "k"}
    assert by_source(reader)["a.tar/0"].extra == expected
    assert by_source(reader)["a.tar/1"].extra == dict.fromkeys(expected)

    typed = corpus("webdataset", tmp_path, label="json.label", extra={"sender": "int64"})
    assert typed.extra_columns == {"sender": pa.int64()}
    assert by_source(typed)["a.tar/0"].extra == {"sender": 12}
    with pytest.raises(CorpusError, match=r"a.tar/0: label = 'dog' is not int64; declare it as string"):
        list(corpus("webdataset", tmp_path, label="json.label", extra={"label": "int64"}).entries())
    with pytest.raises(ConfigError, match="sender = 'whole' is no type; choose string"):
        corpus("webdataset", tmp_path, extra={"sender": "whole"})
    for label in ("pyd", "json", "cls.x", ""):
        with pytest.raises(ConfigError, match=r"choose cls, txt or json\.<field>"):
            corpus("webdataset", tmp_path, label=label)
    with pytest.raises(CorpusError, match=r"cls in the tars of .*: no entry has a label"):
        corpus("webdataset", tmp_path)


def test_a_root_may_be_a_glob_braces_or_one_tar(tmp_path: Path) -> None:
    for number in range(3):
        tar(tmp_path / f"s-{number}.tar", *sample(f"{number}", "0"))
    tar(tmp_path / "t.tar", *sample("9", "0"))
    splits = {"s-2*": "test"}
    sources = ["s-0.tar/0", "s-1.tar/1", "s-2.tar/2"]
    for pattern in ("s-*.tar", "s-{0..2}.tar", "{s-0,s-1,s-2}.tar"):
        found = by_source(corpus("webdataset", f"{tmp_path}/{pattern}", splits=splits))
        assert list(found) == sources
        assert [entry.split for entry in found.values()] == [None, None, "test"]
    assert list(by_source(corpus("webdataset", tmp_path / "t.tar"))) == ["t.tar/9"]
    with pytest.raises(CorpusError, match=r"s-3\.tar, which root .* names, is not there"):
        corpus("webdataset", f"{tmp_path}/s-{{0..3}}.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"holds no \*\.tar"):
        corpus("webdataset", tmp_path / "empty")


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_tar_is_an_error_or_one_refused_entry(tmp_path: Path, how: str) -> None:
    at = damaged(tmp_path / "b.tar", how)
    tar(tmp_path / "a.tar", *sample("a", "0"))
    tar(tmp_path / "c.tar", *sample("c", "0"))
    reader = corpus("webdataset", tmp_path, classes=("x",))
    kept = []
    with pytest.raises(CorpusError, match=r"b\.tar: .* at byte (\d+); fetch the tar again") as error:
        kept.extend(entry.source for entry in reader.entries())
    noticed = int(str(error.value).split("at byte ")[1].split(";")[0])
    assert at <= noticed <= at + 1024

    skipping = corpus("webdataset", tmp_path, on_bad_tar="skip")
    found = labels(skipping)
    (skipped,) = (source for source in found if source.startswith("b.tar/@"))
    behind = {} if how.startswith("cut") else {"b.tar/3": "missing", "b.tar/4": 0}
    assert found == {
        "a.tar/a": 0,
        "b.tar/0": 0,
        "b.tar/1": 0,
        "b.tar/2": 0,
        skipped: "truncated",
        **behind,
        "c.tar/c": 0,
    }


def test_a_file_that_is_no_tar_names_the_cause(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    with pytest.raises(CorpusError, match=r"a\.tar: compressed by gzip.*gunzip"):
        corpus("webdataset", tmp_path)
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(CorpusError, match=r"a\.tar: .*at byte 0; fetch"):
        corpus("webdataset", tmp_path)


def test_an_empty_tar_holds_nothing(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar")
    tar(tmp_path / "b.tar", *sample("b", "0"))
    assert labels(corpus("webdataset", tmp_path)) == {"b.tar/b": 0}


def test_failures_and_gaps_of_img2dataset_are_counted(tmp_path: Path) -> None:
    tar(tmp_path / "00000.tar", *sample("0", "0"))
    rows = {
        "key": ["0", "1", "2"],
        "status": ["success", "failed_to_download", "success"],
        "error_message": [None, "HTTP Error 404: Not Found", None],
    }
    pq.write_table(pa.table(rows), tmp_path / "00000.parquet")
    tar(tmp_path / "00001.tar", *sample("3", "0"))
    pq.write_table(pa.table({"other": [1, 2]}), tmp_path / "00001.parquet")  # not img2dataset's
    reader = corpus("webdataset", tmp_path)
    assert labels(reader) == {
        "00000.tar/0": 0,
        "00000.tar/1": "download_failed",
        "00000.tar/2": "missing",
        "00001.tar/3": 0,
    }
    assert by_source(reader)["00000.tar/1"].detail == "failed_to_download: HTTP Error 404: Not Found"
    (tmp_path / "00000.parquet").write_bytes(b"PAR")
    with pytest.raises(CorpusError, match=r"00000\.parquet is no Parquet file"):
        reasons(reader)


@needs_shared
def test_real_img2dataset_shards_are_all_accounted_for() -> None:
    root = SHARED / "data" / "img2dataset"
    extra = {"sender_id": "int64", "caption": "string", "width": "int32"}
    reader = corpus("webdataset", root, label="json.label", extra=extra)
    entries = by_source(reader)
    assert reasons(reader) == {"": 210, "download_failed": 30}
    parquet = {
        row["key"]: row for number in range(3) for row in pq.read_table(root / f"{number:05d}.parquet").to_pylist()
    }
    assert {entry.key for entry in entries.values()} == parquet.keys()
    for entry in entries.values():
        row = parquet[entry.key or ""]
        if entry.reason:
            assert entry.detail == f"{row['status']}: {row['error_message']}"
        else:
            assert reader.classes[entry.label or 0] == row["label"]
            assert entry.extra == {
                "sender_id": row["sender_id"],
                "caption": row["caption"],
                "width_given": row["width"],
            }
            assert reader.read(entry)[:2] == b"\xff\xd8"
