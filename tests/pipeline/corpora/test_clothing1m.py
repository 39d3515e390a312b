"""The Clothing-1M layout: tiny copies with every irregularity, and the real photographs in that layout."""

import csv
from pathlib import Path

import pytest
from helpers.corpora import by_source, corpus, reasons
from helpers.support import jpeg, needs_shared, put, unpack

from rhostream.errors import CorpusError
from rhostream.pipeline.corpora.clothing1m import CLOTHING1M_CLASSES


def key(number: int) -> str:
    return f"images/{number % 10}/0{number % 10}/{number},10{number}.jpg"


LISTS = {
    "noisy_train_key_list.txt": [key(n) for n in (1, 2, 3, 4, 5, 9)],
    "clean_train_key_list.txt": [key(n) for n in (6, 7, 8, 1)],
    "clean_val_key_list.txt": [key(n) for n in (20, 21)],
    "clean_test_key_list.txt": [key(n) for n in (30, 31, 9, 20)],
    # Images 1 and 7 have both labels, and so has one of each official split.
    "noisy_label_kv.txt": [f"{key(n)} {n % 14}" for n in (1, 2, 3, 7, 20, 30, 9)] + [f"{key(4)} 14", f"{key(5)} -1"],
    "clean_label_kv.txt": [f"{key(n)} {12}" for n in (1, 6, 7, 9, 20, 21, 30)] + [key(8), key(31)],
}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    for name, lines in LISTS.items():
        put(tmp_path / name, "".join(f"{line}\n" for line in lines))
    (tmp_path / "images").mkdir()
    return tmp_path


def test_every_listed_key_has_the_label_of_its_own_file(tiny: Path) -> None:
    listed = list(corpus("clothing1m", tiny).entries())
    assert len(listed) == sum(len(LISTS[name]) for name in LISTS if "key_list" in name)
    accepted = {
        entry.source: (entry.split, entry.label, entry.extra.get("clean_label")) for entry in listed if not entry.reason
    }
    assert accepted == {
        key(1): ("train", 1, 12),
        key(2): ("train", 2, None),
        key(3): ("train", 3, None),
        key(7): ("train", 7, 12),  # in clean train: trained on with its noisy label
        key(21): ("val", 12, None),
        key(30): ("test", 12, None),  # not 2, which the noisy file says
        key(9): ("test", 12, None),
        key(20): ("test", 12, None),
    }
    refused = [(entry.source, entry.reason) for entry in listed if entry.reason]
    assert sorted(refused) == sorted(
        [
            (key(4), "label_out_of_range"),
            (key(5), "label_out_of_range"),
            (key(6), "label_clean_only"),
            (key(8), "label_missing"),  # a line without its label, and no noisy one
            (key(31), "label_missing"),
            (key(9), "duplicate_key"),  # in noisy train, and the test list wins
            (key(20), "duplicate_key"),  # in the val list, and the test list wins
            (key(1), "duplicate_key"),  # in both training lists
        ]
    )
    details = {(entry.source, entry.reason): entry.detail for entry in listed}
    assert details[key(9), "duplicate_key"] == "in noisy_train_key_list.txt, and before in clean_test_key_list.txt"
    assert details[key(8), "label_missing"] == "not in noisy_label_kv.txt"


def test_lists_under_annotations_or_with_windows_endings_are_equal(tiny: Path) -> None:
    expected = list(corpus("clothing1m", tiny).entries())
    for name, lines in LISTS.items():
        (tiny / name).unlink()
        put(tiny / "annotations" / name, "\ufeff" + "".join(f"{line}\r\n\r\n" for line in lines))
    assert list(corpus("clothing1m", tiny).entries()) == expected


@pytest.mark.parametrize("folder", ["images/", ""])
def test_images_are_found_with_and_without_the_folder_images(tiny: Path, folder: str) -> None:
    put(tiny / key(1).replace("images/", folder), jpeg(1))
    reader = corpus("clothing1m", tiny)
    entries = {entry.source: entry for entry in reader.entries() if not entry.reason}
    assert reader.read(entries[key(1)]) == jpeg(1)
    with pytest.raises(FileNotFoundError):
        reader.read(entries[key(2)])


def test_class_names_are_the_copys_own_else_the_well_known(tiny: Path) -> None:
    assert corpus("clothing1m", tiny).classes == CLOTHING1M_CLASSES
    assert len(CLOTHING1M_CLASSES) == 14
    put(tiny / "category_names_eng.txt", "T-shirt\r\nDown Coat\r\n")
    assert corpus("clothing1m", tiny).classes == ("T-shirt", "Down Coat")
    assert reasons(corpus("clothing1m", tiny))["label_out_of_range"] > 5
    assert corpus("clothing1m", tiny, classes=("a", "b")).classes == ("a", "b")


def test_noisy_labels_outside_the_clean_lists_train_without_their_list(tiny: Path) -> None:
    (tiny / "noisy_train_key_list.txt").unlink()
    training = {entry.source for entry in corpus("clothing1m", tiny).entries() if entry.split == "train"}
    assert training == {key(n) for n in (1, 2, 3, 4, 5, 7, 8)}


def test_a_key_cannot_lead_out_of_the_root(tiny: Path) -> None:
    put(tiny / "noisy_train_key_list.txt", "../../secret.jpg\n/etc/passwd\na\0b\n")
    found = {entry.source: entry.reason for entry in corpus("clothing1m", tiny).entries()}
    assert found["../../secret.jpg"] == found["/etc/passwd"] == found["a\0b"] == "missing"


def test_an_incomplete_copy_is_refused_with_the_remedy(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (tiny / "clean_val_key_list.txt").unlink()
    with pytest.raises(CorpusError, match=r"clean_val_key_list\.txt of Clothing-1M not there; copy"):
        corpus("clothing1m", tiny)
    put(tiny / "clean_val_key_list.txt", b"\xff\xfe\x00")
    with pytest.raises(CorpusError, match=r"clean_val_key_list\.txt is not a text file in UTF-8"):
        list(corpus("clothing1m", tiny).entries())

    folders_only = tmp_path_factory.mktemp("folders")
    put(folders_only / "clean_train" / "0" / "a.jpg", jpeg())
    with pytest.raises(CorpusError, match="no text files: use format imagefolder"):
        corpus("clothing1m", folders_only)
    with pytest.raises(CorpusError, match="this is not Clothing-1M"):
        corpus("clothing1m", tmp_path_factory.mktemp("nothing"))


@needs_shared
def test_real_photographs_in_this_layout_are_all_accounted_for() -> None:
    root = unpack("clothing1m")
    reader = corpus("clothing1m", root)
    entries = by_source(reader)
    with (root / "truth.csv").open(newline="") as stream:
        truth = {row["key"]: row for row in csv.DictReader(stream)}
    assert entries.keys() == truth.keys()
    assert reasons(reader) == {"": 4819, "label_clean_only": 141, "label_missing": 1}
    for source, entry in entries.items():
        true = int(truth[source]["true_label"])
        if entry.reason:
            continue
        if entry.split == "train":
            assert entry.label == int(truth[source]["noisy_label"])
            assert entry.extra.get("clean_label") in (None, true)
        else:
            assert entry.label == true
    clean = [entry for entry in entries.values() if "clean_label" in entry.extra]
    assert len(clean) == 142  # every other image of the clean training list
    missing = 0
    for entry in entries.values():
        try:
            reader.read(entry)
        except FileNotFoundError:
            missing += 1
    assert missing == 1
