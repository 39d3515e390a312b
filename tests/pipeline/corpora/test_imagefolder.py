"""Folders of images, one folder a class."""

import os
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.corpora import by_source, corpus, labels, reasons
from helpers.support import jpeg, needs_shared, put, unpack

from rhostream.cli.main import rho
from rhostream.errors import ConfigError, CorpusError


def test_every_file_below_a_class_folder_is_an_entry(tmp_path: Path) -> None:
    for name in ("dog/a.jpg", "dog/deep/er/b.PNG", "cat/c.jpg", "cat/notes.txt", "Zebra/d"):
        put(tmp_path / name, name)
    reader = corpus("imagefolder", tmp_path)
    assert reader.classes == ("Zebra", "cat", "dog")  # torchvision's order
    expected = {"Zebra/d": 0, "cat/c.jpg": 1, "cat/notes.txt": 1, "dog/a.jpg": 2, "dog/deep/er/b.PNG": 2}
    assert labels(reader) == expected
    assert {entry.split for entry in reader.entries()} == {None}
    assert all(reader.read(entry) == entry.source.encode() for entry in reader.entries())


def test_a_class_without_a_sample_is_told_of(tmp_path: Path) -> None:
    for name in ("cat/a.jpg", "dog/b.jpg"):
        put(tmp_path / "photos" / name, name)
    (tmp_path / "photos" / "old").mkdir()
    manifest = tmp_path / "photos.toml"
    manifest.write_text('format = "imagefolder"\nroot = "photos"\n')
    command = ["shards", "--manifest", str(manifest), "--workspace", str(tmp_path / "w"), "--dry-run"]
    told = CliRunner().invoke(rho, command)
    assert told.exit_code == 0, told.output
    (line,) = [line for line in told.stdout.splitlines() if line.startswith("empty classes")]
    assert line.split()[2] == "1"
    assert "for instance old" in line
    assert "empty classes" not in CliRunner().invoke(rho, [*command, "--classes", "cat,dog"]).stdout


def test_classes_and_labels_are_those_of_torchvision(tmp_path: Path) -> None:
    for name in ("b/1.jpg", "a/2.jpg", "C/sub/3.jpg"):
        put(tmp_path / name, jpeg())
    from torchvision.datasets import ImageFolder

    theirs = ImageFolder(str(tmp_path))
    reader = corpus("imagefolder", tmp_path)
    assert list(reader.classes) == theirs.classes
    assert labels(reader) == {str(Path(path).relative_to(tmp_path)): label for path, label in theirs.samples}


def test_clutter_is_left_out_an_unclassified_image_is_refused(tmp_path: Path) -> None:
    clutter = ("cat/.DS_Store", "cat/Thumbs.db", ".git/x.jpg", "__MACOSX/cat/._a.jpg", "README.md", "labels.csv")
    for name in ("cat/a.jpg", "stray.jpg", *clutter):
        put(tmp_path / name, jpeg())
    reader = corpus("imagefolder", tmp_path)
    assert reader.classes == ("cat",)
    assert labels(reader) == {"cat/a.jpg": 0, "stray.jpg": "label_missing"}


def test_top_folders_named_as_splits_are_the_official_splits(tmp_path: Path) -> None:
    for name in ("train/cat/a.jpg", "valid/cat/a.jpg", "test/dog/b.jpg"):
        put(tmp_path / name, jpeg())
    reader = corpus("imagefolder", tmp_path)
    found = {entry.source: (entry.split, entry.label) for entry in reader.entries()}
    assert reader.classes == ("cat", "dog")
    assert found == {"train/cat/a.jpg": ("train", 0), "valid/cat/a.jpg": ("val", 0), "test/dog/b.jpg": ("test", 1)}
    put(tmp_path / "other" / "c.jpg", jpeg())  # one folder of another name: they are classes
    assert corpus("imagefolder", tmp_path).classes == ("other", "test", "train", "valid")


def test_split_folders_of_other_names_are_declared(tmp_path: Path) -> None:
    for name in ("noisy_train/cat/a.jpg", "clean_train/cat/b.jpg", "clean_test/cat/c.jpg"):
        put(tmp_path / name, jpeg())
    splits = {"noisy_train": "train", "clean_train": "train", "clean_test": "test"}
    found = by_source(corpus("imagefolder", tmp_path, splits=splits))
    assert [found[name].split for name in sorted(found)] == ["test", "train", "train"]
    with pytest.raises(ConfigError, match="give every folder its split"):
        corpus("imagefolder", tmp_path, splits={"noisy_train": "train"})
    with pytest.raises(ConfigError, match="noisy_train = 'training' is no split; choose train, holdout, val, test"):
        corpus("imagefolder", tmp_path, splits={"noisy_train": "training"})


def test_classes_of_the_manifest_select_and_number_the_folders(tmp_path: Path) -> None:
    for name in ("cat/a.jpg", "dog/b.jpg", "cow/c.jpg"):
        put(tmp_path / name, jpeg())
    reader = corpus("imagefolder", tmp_path, classes=("dog", "cat"))
    assert labels(reader) == {"cat/a.jpg": 1, "dog/b.jpg": 0, "cow/c.jpg": "label_unknown"}


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(root / "cat" / "a.jpg", jpeg())
    put(tmp_path / "elsewhere" / "b.jpg", jpeg(1))
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "loop").symlink_to(root)
    (root / "cat" / "self.jpg").symlink_to("self.jpg")
    (root / "cat" / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(root / "cat" / "pipe.jpg")  # opening it would wait for ever
    reader = corpus("imagefolder", root)
    found = labels(reader)
    assert found == {"cat/a.jpg": 0, "cat/self.jpg": 0, "cat/gone.jpg": 0, "dog/b.jpg": 1}
    with pytest.raises(FileNotFoundError):
        reader.read(by_source(reader)["cat/gone.jpg"])


def test_names_that_are_not_utf8_are_listed_escaped_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "cat" / os.fsdecode(b"gr\xfcn.jpg")
    put(tmp_path / "cat" / "gr\u00fcn.jpg", b"utf-8")
    put(path, b"latin-1")
    reader = corpus("imagefolder", tmp_path)
    found = by_source(reader)
    assert set(found) == {"cat/gr\u00fcn.jpg", "cat/gr\\xfcn.jpg"}
    assert reader.read(found["cat/gr\\xfcn.jpg"]) == b"latin-1"
    assert all(source.encode() for source in found)


def test_a_root_without_class_folders_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg", jpeg())
    with pytest.raises(CorpusError, match="has no class folders"):
        corpus("imagefolder", tmp_path)
    with pytest.raises(CorpusError, match="is a file"):
        corpus("imagefolder", tmp_path / "a.jpg")


@needs_shared
def test_real_photographs_in_class_folders() -> None:
    reader = corpus("imagefolder", unpack("imagefolder"))
    assert reasons(reader) == {"": 5422}
    assert len(reader.classes) == 20
    assert Counter(entry.label for entry in reader.entries())[reader.classes.index("T-Shirt")] >= 1011
