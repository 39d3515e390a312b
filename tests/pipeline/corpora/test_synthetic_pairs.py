"""The synthetic corpus of pairs: drawn garments, their captions, and the truth about the wrong ones."""

import csv
import hashlib
from collections import Counter
from dataclasses import replace

import pytest

from rhostream.errors import ConfigError, CorpusError
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import resolve_manifest
from rhostream.pipeline.corpora.formats import open_corpus
from rhostream.pipeline.corpora.synthetic.pairs import BOILERPLATE, CAPTIONS, SyntheticPairsOptions, write_pairs
from rhostream.pipeline.shards import write_shards

SMALL = SyntheticPairsOptions(images=120, holdout_images=30, test_images=20, side=24)


def manifest(root, **settings):
    options = {"images": 120, "holdout_images": 30, "test_images": 20, "side": 24}
    usual = {"name": "p", "format": "synthetic_pairs", "task": "pairs", "root": str(root), "holdout": 0}
    return resolve_manifest(("test", usual | {"options": options} | settings))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs") / "corpus"
    write_pairs(folder, SMALL, processes=0)
    return folder


def rows_of(folder):
    with (folder / CAPTIONS).open(newline="") as stream:
        return list(csv.DictReader(stream))


def digests(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_wrong_captions_are_as_many_and_as_wrong_as_asked(tmp_path):
    from rhostream.pipeline.corpora.synthetic import pairs

    options = SyntheticPairsOptions(images=4_000, holdout_images=50, test_images=50)
    rows = list(csv.DictReader(pairs._captions(options)))
    train = [row for row in rows if row["split"] == "train"]
    assert all((row["mismatched"] == "true") == (row["caption"] != row["true_caption"]) for row in rows)
    assert all(row["mismatched"] == "false" for row in rows if row["split"] != "train")
    wrong = Counter(row["wrong"] for row in train)
    assert abs(1 - wrong["none"] / len(train) - 0.4) < 0.02
    assert wrong["shuffled"] > 2 * wrong["near"] > 2 * 0.8 * wrong["boilerplate"] > 0
    for row in train:
        told, true = row["caption"].split(), row["true_caption"].split()
        if row["wrong"] == "near":
            assert told[2:] == true[2:]
            assert told[1] != true[1]
        elif row["wrong"] == "boilerplate":
            assert row["caption"] in BOILERPLATE


def test_corpus_of_pairs_is_drawn_once_and_read_as_pairs(tmp_path, root):
    folder = tmp_path / "corpus"
    summary = write_shards(tmp_path / "workspace", manifest(folder), workers=0)
    assert digests(folder) == digests(root)  # by several processes here, by one there
    assert summary.samples == {"holdout": 30, "test": 20, "train": 120}
    corpus = CorpusMetadata.read(Workspace(tmp_path / "workspace"))
    found = [
        row for shard in corpus.shards for row in Workspace(tmp_path / "workspace").read_table(shard.index).to_pylist()
    ]
    told = {row["source"]: (row["text"], row["mismatched"], row["wrong"], row["true_caption"]) for row in found}
    asked = {
        row["path"]: (row["caption"], row["mismatched"] == "true", row["wrong"], row["true_caption"])
        for row in rows_of(root)
    }
    assert told == asked


def test_corpus_of_pairs_that_was_cut_short_ends_the_same(tmp_path, root):
    folder = tmp_path / "corpus"
    write_pairs(folder, SMALL, processes=0)
    (folder / CAPTIONS).unlink()
    next(folder.glob("images/*/*.jpg")).write_bytes(b"half")
    write_pairs(folder, SMALL, processes=0)
    assert digests(folder) == digests(root)


def test_other_roots_options_and_tasks_are_refused(tmp_path, root):
    with pytest.raises(CorpusError, match="images 120 instead of 121"):
        write_pairs(root, replace(SMALL, images=121), processes=0)
    with pytest.raises(ConfigError, match='task = "pairs"'):
        open_corpus(manifest(root, task="classification", holdout=0.1))
    for options in ({"side": 8}, {"wrong_captions": 1.0}, {"images": 0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            SyntheticPairsOptions(**options)
