"""The synthetic corpus of texts: a function of its options alone, its truth known, its dirt where it says."""

import random
from collections import Counter
from pathlib import Path

import pytest
from helpers.corpora import by_source, corpus

from rhostream.errors import ConfigError, CorpusError
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.corpora.synthetic import text_corpus
from rhostream.pipeline.corpora.synthetic.messages import REQUESTS, message
from rhostream.pipeline.corpora.synthetic.text_corpus import (
    CLASSES,
    TABLE,
    SyntheticTextOptions,
    write_messages,
)

SMALL = {"texts": 1200, "test_texts": 240}
KIND = "synthetic_text"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "corpus"
    write_messages(folder, SyntheticTextOptions(texts=1200, test_texts=240))
    return folder


@pytest.fixture(scope="module")
def entries(root: Path) -> dict[str, Entry]:
    return by_source(corpus(KIND, root, **SMALL))


def test_entries_have_split_label_truth_and_wording(root: Path, entries: dict[str, Entry]) -> None:
    assert Counter(entry.split for entry in entries.values()) == {None: 1200, "test": 240}
    reader = corpus(KIND, root, **SMALL)
    assert (reader.classes, reader.read(entries["m000000"]).decode().isascii()) == (CLASSES, True)
    for entry in entries.values():
        assert entry.label is not None
        if entry.split == "test":
            assert entry.label == entry.extra["clean_label"]
    assert {entry.extra["wording"] for entry in entries.values()} == {"form", "usual", "rare", None}


def test_shares_of_wrong_labels_forms_and_classes_are_as_asked(entries: dict[str, Entry]) -> None:
    train = [entry for entry in entries.values() if entry.split is None]
    wrong = sum(entry.label != entry.extra["clean_label"] for entry in train)
    assert 0.45 < wrong / len(train) < 0.55
    assert 0.45 < sum(entry.extra["wording"] == "form" for entry in train) / len(train) < 0.55
    counts = Counter(entry.extra["clean_label"] for entry in train)
    assert counts[0] > 3 * counts[len(CLASSES) - 1] > 0
    test = Counter(entry.label for entry in entries.values() if entry.split == "test")
    assert set(test.values()) == {20}


def test_duplicates_repeat_and_broken_messages_are_broken(root: Path, entries: dict[str, Entry]) -> None:
    reader = corpus(KIND, root, **SMALL)
    texts = [reader.read(entry) for entry in entries.values()]
    shouted = [text for text in texts if text.isupper()]
    originals = {text.upper() for text in texts if not text.isupper()}
    assert 40 < len(shouted) < 110
    assert all(text.replace(b"  ", b" ") in originals for text in shouted)
    broken = Counter(text for text in texts if text in text_corpus.DEFECTS.values())
    assert broken == dict.fromkeys(text_corpus.DEFECTS.values(), 2)


def test_no_wording_asks_for_two_things() -> None:
    asked = Counter(f"{verb} {what}" for verbs, objects in REQUESTS.values() for verb in verbs for what in objects)
    assert len(asked) == 12 * 36
    text, wording = message("refund", random.Random(3), form=0.0)
    assert (text.isprintable(), wording in ("usual", "rare")) == (True, True)


def test_corpora_of_one_seed_are_alike_of_two_not(root: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        write_messages(tmp_path / str(seed), SyntheticTextOptions(texts=1200, test_texts=240, seed=seed))
    same, other = ((tmp_path / str(seed) / TABLE).read_bytes() for seed in (0, 1))
    assert same == (root / TABLE).read_bytes() != other


def test_folders_of_others_and_other_options_are_left_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_bytes(b"mine")
    with pytest.raises(CorpusError, match=r"diary\.txt.*--root"):
        corpus(KIND, tmp_path)
    with pytest.raises(CorpusError, match="texts 1200 instead of 300"):
        corpus(KIND, root, texts=300, test_texts=240)
    with pytest.raises(CorpusError, match="holds a synthetic corpus with"):
        corpus("synthetic", root)
    with pytest.raises(ConfigError, match="wrong_labels"):
        corpus(KIND, tmp_path / "new", wrong_labels=0.9)
