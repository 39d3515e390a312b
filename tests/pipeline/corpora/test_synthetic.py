"""The synthetic corpus: the layout of Clothing-1M, a function of its options alone, its dirt where it says."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.corpora import corpus
from PIL import Image

from rhostream.errors import ConfigError, CorpusError, UndecodableImageError
from rhostream.loaders.decode.rgb import decode_rgb
from rhostream.pipeline.corpora.synthetic.corpus import MARKER, key, write_corpus
from rhostream.pipeline.corpora.synthetic.drawn_folder import STAMP
from rhostream.pipeline.corpora.synthetic.plan import (
    CLASSES,
    COMMONEST,
    DEFECTS,
    MISTAKEN_FOR,
    SyntheticOptions,
    plan,
)

SMALL = SyntheticOptions(images=240, test_images=56)
LARGE = SyntheticOptions(images=100_000)  # labels only: nothing is drawn

_KILLED = """
import sys
from pathlib import Path
from rhostream.pipeline.corpora.synthetic.corpus import write_corpus
from rhostream.pipeline.corpora.synthetic.plan import SyntheticOptions
if __name__ == "__main__":
    write_corpus(Path(sys.argv[1]), SyntheticOptions(images=240, test_images=56), processes=0)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "corpus"
    write_corpus(folder, SMALL, processes=0)
    return folder


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_the_layout_is_that_of_clothing1m(root: Path) -> None:
    assert {path.name for path in root.iterdir()} == {
        "images",
        "category_names_eng.txt",
        "noisy_label_kv.txt",
        "clean_label_kv.txt",
        "noisy_train_key_list.txt",
        "clean_train_key_list.txt",
        "clean_val_key_list.txt",
        "clean_test_key_list.txt",
        STAMP,
    }
    train, val, test = (_lines(root / f"{name}_key_list.txt") for name in ("noisy_train", "clean_val", "clean_test"))
    assert (len(train), len(val), len(test)) == (240, 14, 56)
    assert len({Path(name).name for name in train + val + test}) == 310
    for name in train + val + test:
        match = re.fullmatch(r"images/(\d)/(\d\d)/\d+,(\d+)\.jpg", name)
        assert match, name
        assert match[3][-3:] == match[1] + match[2]
        assert len(name) <= 37
    on_disk = {str(path.relative_to(root)) for path in (root / "images").rglob("*.jpg")}
    assert len(set(train + val + test) - on_disk) == 2  # listed and missing
    assert not on_disk - set(train + val + test)
    assert _lines(root / "category_names_eng.txt") == list(CLASSES)
    assert [line.split(" ")[0] for line in _lines(root / "noisy_label_kv.txt")] == train


def test_every_entry_has_its_split_its_label_and_the_truth(root: Path) -> None:
    reader = corpus("synthetic", root, images=240, test_images=56)
    entries = {entry.source: entry for entry in reader.entries()}
    work = plan(SMALL)
    assert reader.classes == CLASSES
    assert Counter(entry.split for entry in entries.values()) == {"train": 240, "val": 14, "test": 56}
    for number in range(SMALL.total):
        entry = entries[key(number)]
        if number < SMALL.images:
            assert (entry.label, entry.extra["clean_label"]) == (work.given[number], work.true[number])
        else:
            assert entry.label == work.true[number]


@pytest.mark.slow
def test_the_reader_draws_a_corpus_that_is_not_there(tmp_path: Path, root: Path) -> None:
    folder = tmp_path / "deep" / "corpus"
    reader = corpus("synthetic", folder, images=240, test_images=56)
    assert not folder.exists()
    assert sum(1 for _ in reader.entries()) == 310
    assert _digests(folder) == _digests(root)  # drawn by several processes here, by one there


@pytest.mark.slow
def test_a_corpus_killed_while_drawn_ends_with_the_same_bytes(tmp_path: Path, root: Path) -> None:
    folder = tmp_path / "corpus"
    for wanted in (1, 60, 120):
        child = subprocess.Popen([sys.executable, "-c", _KILLED, str(folder)], stderr=subprocess.DEVNULL)
        # The files drawn before are there still: what tells how far this process is, is which have been written anew.
        begun = time.time_ns()
        deadline = time.monotonic() + 30
        while child.poll() is None and time.monotonic() < deadline and _written_since(folder, begun) < wanted:
            time.sleep(0.002)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert not (folder / MARKER).exists(), "the process had ended before it was killed"
        assert (folder / STAMP).exists()
    write_corpus(folder, SMALL, processes=0)
    assert _digests(folder) == _digests(root)


def _written_since(folder: Path, begun: int) -> int:
    return sum(path.stat().st_mtime_ns >= begun for path in folder.glob("images/*/*/*.jpg"))


def test_a_complete_corpus_is_not_drawn_again(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    write_corpus(root, SMALL, processes=0)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_broken_files_are_broken_and_odd_ones_are_shown(root: Path) -> None:
    found = Counter[str]()
    for number, defect in plan(SMALL).defects.items():
        path = root / key(number)
        if defect == "missing":
            assert not path.exists()
        elif defect in ("truncated", "empty", "html"):
            with pytest.raises(UndecodableImageError) as caught:
                decode_rgb(path.read_bytes())
            assert caught.value.reason == defect
        else:
            with Image.open(path) as image:
                assert (image.format, image.mode) == {
                    "cmyk": ("JPEG", "CMYK"),
                    "rgba_png": ("PNG", "RGBA"),
                    "grayscale": ("JPEG", "L"),
                }[defect]
            assert decode_rgb(path.read_bytes()).size == (64, 64)
        found[defect] += 1
    assert found == dict.fromkeys(DEFECTS, 2)


def test_exact_duplicates_are_byte_identical_and_near_ones_are_not(root: Path) -> None:
    work = plan(SMALL)
    repeats = np.flatnonzero(work.picture != np.arange(SMALL.total))
    assert len(repeats) == round(0.12 * 240)
    kinds = Counter[bool]()
    for number in repeats:
        copy, original = ((root / key(int(n))).read_bytes() for n in (number, work.picture[number]))
        assert (copy == original) == work.exact[number]
        difference = np.abs(np.asarray(decode_rgb(copy), float) - np.asarray(decode_rgb(original), float))
        assert difference.mean() < 30  # still the same picture
        kinds[bool(work.exact[number])] += 1
    assert min(kinds.values()) >= 5


def test_exact_duplicates_may_disagree_about_their_label() -> None:
    work = plan(LARGE)
    repeats = np.flatnonzero(work.exact)
    disagree = work.given[repeats] != work.given[work.picture[repeats]]
    assert 0.3 < disagree.mean() < 0.8


def test_no_test_image_is_a_training_image(root: Path) -> None:
    hashes = [
        {
            hashlib.sha256((root / name).read_bytes()).digest()
            for name in _lines(root / f"{kind}_key_list.txt")
            if (root / name).exists()
        }
        for kind in ("noisy_train", "clean_val", "clean_test")
    ]
    assert not hashes[0] & (hashes[1] | hashes[2])
    assert not hashes[1] & hashes[2]
    assert len(hashes[2]) == 56
    work = plan(SMALL)
    assert (work.picture[: SMALL.images] < SMALL.images).all()
    assert (work.picture[SMALL.images :] == np.arange(SMALL.images, SMALL.total)).all()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.38])
def test_the_share_of_wrong_labels_is_the_one_asked_for(share: float) -> None:
    work = plan(SyntheticOptions(images=50_000, wrong_labels=share, seed=3))
    wrong = (work.given != work.true[:50_000]).mean()
    assert wrong == 0 if share == 0 else abs(wrong - share) < 0.01


def test_wrong_labels_are_structured_the_true_class_stays_likeliest() -> None:
    work = plan(LARGE)
    true, rates = work.true[: LARGE.images], []
    for label, name in enumerate(CLASSES):
        given = np.bincount(work.given[true == label], minlength=len(CLASSES)) / (true == label).sum()
        look_alikes = [CLASSES.index(other) for other in MISTAKEN_FOR[name][1]]
        others = [k for k in range(len(CLASSES)) if k not in (label, *look_alikes)]
        assert min(given[look_alikes]) > 3 * max(given[others])
        assert given[label] > 2 * max(np.delete(given, label))
        rates.append(1 - given[label])
    assert min(rates) < 0.3 < 0.45 < max(rates)


def test_training_has_a_long_tail_the_test_set_is_balanced() -> None:
    work = plan(LARGE)
    counts = np.bincount(work.true[: LARGE.images])[[CLASSES.index(name) for name in COMMONEST]]
    assert 5 < counts[0] / counts[-1] < 7
    assert (np.diff(counts) < 0).all()
    test = np.bincount(work.true[-LARGE.test_images :])
    assert test.max() - test.min() <= 1


def test_another_seed_gives_another_corpus(tmp_path: Path, root: Path) -> None:
    other = SyntheticOptions(images=240, test_images=56, seed=1)
    assert (plan(other).given != plan(SMALL).given).any()
    write_corpus(tmp_path / "other", other, processes=0)
    images = [
        {d for name, d in _digests(folder).items() if name.endswith(".jpg")} for folder in (tmp_path / "other", root)
    ]
    assert len(images[0] & images[1]) == 2  # the empty file and the web page


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(CorpusError, match=r"holiday\.jpg.*--root"):
        corpus("synthetic", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
    with pytest.raises(CorpusError, match="is a file"):
        corpus("synthetic", tmp_path / "holiday.jpg")


def test_a_corpus_of_other_options_is_neither_read_nor_overwritten(root: Path) -> None:
    with pytest.raises(CorpusError, match="images 240 instead of 300"):
        corpus("synthetic", root, images=300, test_images=56)


@pytest.mark.parametrize("options", [{"images": 20}, {"side": 8}, {"wrong_labels": 0.9}, {"duplicates": -0.1}])
def test_options_beyond_reason_are_refused(tmp_path: Path, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        corpus("synthetic", tmp_path / "corpus", **options)
