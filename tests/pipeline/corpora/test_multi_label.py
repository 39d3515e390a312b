"""Corpora whose samples have any number of classes: tables with lists or with a column for each class, and tars."""

import tarfile
from pathlib import Path

import pytest
from helpers.corpora import labels, reasons
from helpers.support import jpeg, put
from helpers.tagged import (
    CLASSES,
    as_columns,
    as_json_lines,
    as_parquet,
    as_tars,
    as_text,
    classes_of,
    tagged_manifest,
    write_tagged,
)

from rhostream.errors import ConfigError, CorpusError
from rhostream.pipeline.config.manifest import Manifest, Noise
from rhostream.pipeline.corpora.base import Corpus
from rhostream.pipeline.corpora.formats import open_corpus
from rhostream.pipeline.corpora.labels import LabelListParser, label_texts, text_of_labels


def opened(root: Path, kind: str = "table", classes: tuple[str, ...] = (), **options: object) -> Corpus:
    manifest = Manifest(
        name="tagged", format=kind, task="multi_label", root=str(root), classes=classes, options=dict(options)
    )
    return open_corpus(manifest)


@pytest.mark.parametrize(
    ("write_table", "options"),
    [
        (as_text, {"separator": ";"}),
        (as_columns, {"class_columns": ["*"]}),
        (as_json_lines, {}),
        (as_parquet, {}),
    ],
)
def test_every_way_to_write_lists_gives_the_same_labels(tmp_path, write_table, options):
    reader = open_corpus(tagged_manifest(write_tagged(tmp_path, write_table, 16), **options))
    assert reader.classes == CLASSES
    assert labels(reader) == {f"{i}.png": tuple(CLASSES.index(name) for name in classes_of(i)) for i in range(16)}
    assert {entry.split for entry in reader.entries()} == {"test", None}


def test_tars_tell_lists_in_their_json(tmp_path):
    root = write_tagged(tmp_path, as_tars, 16)
    reader = open_corpus(tagged_manifest(root, kind="webdataset", label="json.tags", splits={"test.tar": "test"}))
    assert reader.classes == CLASSES
    found = {source.rpartition("/")[2]: label for source, label in labels(reader).items()}
    assert found == {str(i): tuple(CLASSES.index(name) for name in classes_of(i)) for i in range(16)}


def test_the_text_of_a_member_is_split_by_the_separator(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (("1.jpg", jpeg()), ("1.cls", b"2\n0\n"), ("2.jpg", jpeg(1)), ("2.cls", b"")):
            put(tmp_path / name, content)
            tar.add(tmp_path / name, name)
    reader = opened(tmp_path, "webdataset", ("cat", "dog", "bird"), separator="\n")
    assert labels(reader) == {"a.tar/1": (0, 2), "a.tar/2": ()}


def test_a_list_with_one_bad_label_is_refused(tmp_path):
    rows = 'path;tags\n1;"cat,dog"\n2;cat\n3;\n4;"cat,cow"\n5;"dog,7"\n6;" dog , cat ,,dog"\n7;[1]\n'
    put(tmp_path / "labels.csv", rows.replace('"', "").replace(",", "|").replace(";", ","))
    found = labels(opened(tmp_path, classes=("cat", "dog"), label_column="tags", separator="|"))
    assert found == {
        "1": (0, 1),
        "2": (0,),
        "3": (),
        "4": "label_unknown",
        "5": "label_out_of_range",
        "6": (0, 1),
        "7": (1,),  # a JSON list
    }


def test_a_text_without_a_separator_is_no_class(tmp_path):
    put(tmp_path / "labels.csv", 'path,label\n1,Dress;Hat\n2,"[""Dress"", ""Hat""]"\n3,\n')
    reader = opened(tmp_path)
    assert reader.classes == ("Dress", "Hat")
    assert reasons(reader) == {"": 1, "label_unknown": 1, "label_missing": 1}
    assert "separator" in next(reader.entries()).detail


def test_json_lines_tell_missing_from_empty_lists(tmp_path):
    rows = ['{"path": "1", "label": ["a", "b"]}', '{"path": "2", "label": []}', '{"path": "3"}']
    put(tmp_path / "tags.jsonl", "\n".join([*rows, '{"path": "4", "label": [null]}']))
    assert labels(opened(tmp_path)) == {"1": (0, 1), "2": (), "3": "label_missing", "4": "label_missing"}


def test_class_columns_say_what_absent_means(tmp_path):
    put(tmp_path / "labels.csv", "path,hat,coat,notes\n1,1,-1,x\n2,1.0,,y\n3,TRUE,0,z\n4,2,0,z\n5,,0,\n")
    columns = {"class_columns": ["coat", "hat"]}
    reader = opened(tmp_path, **columns)
    assert reader.classes == ("hat", "coat")  # in the order of the table
    assert list(reader.extra_columns) == ["notes"]
    assert labels(reader) == {
        "1": "label_unknown",
        "2": "label_missing",
        "3": (0,),
        "4": "label_unknown",
        "5": "label_missing",
    }
    lenient = opened(tmp_path, classes=("coat", "hat"), absent=["-1", "0", ""], **columns)
    assert labels(lenient) == {"1": (1,), "2": (1,), "3": (1,), "4": "label_unknown", "5": ()}


def test_strange_lists_travel_as_text_and_make_no_class():
    for raw in (["a", "\ud83d"], [], ["b", ["a"], {"c": 1}], "x;\udc00", "", None):
        text = text_of_labels(raw)
        assert (text or "").encode().decode() == (text or "")
        assert label_texts(text, "multi_label", ";") == label_texts(raw, "multi_label", ";")
    assert label_texts(["b", ["a"], {"c": 1}], "multi_label", "") == ["b"]
    assert LabelListParser(["a", "b"], "").parse(["b", ["a"]])[1] == "label_unknown"


def test_options_and_tasks_that_do_not_go_together_are_refused(tmp_path):
    root = write_tagged(tmp_path, as_parquet, 4)
    plain = Manifest(name="tagged", format="table", root=str(root))
    for manifest, words in (
        (plain, 'holds lists of labels: say task = "multi_label"'),
        (Manifest(name="t", format="table", root=str(root), options={"separator": ";"}), "multi-label corpora"),
        (Manifest(name="t", format="imagefolder", root=str(root), task="multi_label"), "gives each sample one class"),
        (tagged_manifest(root, separator=";", class_columns=["*"]), "give one"),
        (tagged_manifest(root, class_columns=["has_*"]), "no column 'has_\\*'"),
    ):
        with pytest.raises(ConfigError, match=words):
            open_corpus(manifest)
    with pytest.raises(ConfigError, match="multi-label"):
        Manifest(name="t", format="table", task="multi_label", noise=Noise())
    put(tmp_path / "none" / "labels.csv", "path,label\n1,\n2,\n")
    with pytest.raises(CorpusError, match="no entry has a label"):
        opened(tmp_path / "none", separator=";")
