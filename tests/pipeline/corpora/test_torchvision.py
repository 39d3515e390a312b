"""Datasets of torchvision, read through its own classes."""

import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers.corpora import by_source, corpus, labels
from helpers.support import needs_shared, put, unpack
from PIL import Image

from rhostream.errors import ConfigError, CorpusError
from rhostream.pipeline.corpora.torchvision import _opened

TRAIN = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
TEST = np.random.default_rng(1).integers(0, 256, (5, 28, 28), dtype=np.uint8)


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """MNIST's own files, with 20 + 5 images."""
    for name, images in (("train", TRAIN), ("t10k", TEST)):
        count = len(images)
        raw = tmp_path / "MNIST" / "raw"
        put(raw / f"{name}-images-idx3-ubyte", struct.pack(">4i", 2051, count, 28, 28) + images.tobytes())
        put(raw / f"{name}-labels-idx1-ubyte", struct.pack(">2i", 2049, count) + bytes(n % 10 for n in range(count)))
    return tmp_path


def test_items_of_both_splits_are_entries_and_pixels_survive(mnist: Path) -> None:
    reader = corpus("torchvision", mnist, dataset="MNIST")
    found = by_source(reader)
    assert len(found) == 25
    assert [entry.label for entry in found.values()] == [n % 10 for n in (*range(20), *range(5))]
    assert {entry.split for entry in found.values()} == {"train", "test"}
    assert reader.classes[3] == "3 - three"
    for source, pixels in (("train/000007", TRAIN[7]), ("test/000004", TEST[4])):
        png = reader.read(found[source])
        image = Image.open(io.BytesIO(png))
        assert (image.format, image.mode) == ("PNG", "L")
        assert (np.asarray(image) == pixels).all()
        assert reader.read(found[source]) == png


def test_listing_decodes_no_image(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import MNIST

    read: list[int] = []
    original = MNIST.__getitem__
    monkeypatch.setattr(MNIST, "__getitem__", lambda self, index: read.append(index) or original(self, index))
    assert len(labels(corpus("torchvision", mnist, dataset="MNIST"))) == 25
    assert set(read) <= {0}  # one item a split, to see that the kept labels are those of the items


def test_a_worker_gets_little_and_opens_the_dataset_itself(mnist: Path) -> None:
    reader = corpus("torchvision", mnist, dataset="MNIST")
    entry = by_source(reader)["train/000003"]
    expected = reader.read(entry)
    traveling = pickle.dumps((reader, entry))
    assert len(traveling) < 2000
    _opened.cache_clear()  # as in a new process
    there, same = pickle.loads(traveling)
    assert there.read(same) == expected


def test_a_dataset_without_labels_is_read_item_by_item(tmp_path: Path) -> None:
    from torchvision.datasets import FakeData

    arguments = {"size": 12, "image_size": [3, 8, 8], "num_classes": 4}
    expected = [int(FakeData(**arguments)[n][1]) for n in range(12)]
    reader = corpus("torchvision", tmp_path, dataset="FakeData", splits={"train": arguments})
    assert list(labels(reader).values()) == expected
    assert reader.classes == tuple(str(n) for n in range(max(expected) + 1))
    few = corpus("torchvision", tmp_path, dataset="FakeData", splits={"train": arguments}, classes=("a", "b"))
    assert set(labels(few).values()) <= {0, 1, "label_out_of_range"}


def test_bad_options_and_missing_data_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'LSUN': torchvision unpickles a cache of it from the working directory"):
        corpus("torchvision", tmp_path, dataset="LSUN")
    with pytest.raises(ConfigError, match=r"'CIFAR' is no class of torchvision.datasets; did you mean 'CIFAR10'"):
        corpus("torchvision", tmp_path, dataset="CIFAR")
    with pytest.raises(ConfigError, match="SVHN takes no argument 'train', only root, split"):
        corpus("torchvision", tmp_path, dataset="SVHN")
    with pytest.raises(ConfigError, match=r"SVHN refuses .*Unknown value 'big'"):
        corpus("torchvision", tmp_path, dataset="SVHN", splits={"train": {"split": "big"}})
    with pytest.raises(ConfigError, match=r"big = .*: give train, val or test"):
        corpus("torchvision", tmp_path, dataset="MNIST", splits={"big": {"train": True}})
    with pytest.raises(CorpusError, match=r"CIFAR10 .* is not in .*set download = true"):
        corpus("torchvision", tmp_path, dataset="CIFAR10")


@needs_shared
def test_real_mnist() -> None:
    reader = corpus("torchvision", unpack("mnist"), dataset="MNIST")
    counts = np.zeros((2, 10), dtype=int)
    for entry in reader.entries():
        counts[int(entry.split == "test"), entry.label] += 1
    assert counts.tolist() == [
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    ]
