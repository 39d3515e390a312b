"""The real datasets go through `rho shards`: nothing is lost, and every defect has its own reason."""

import csv
import gzip
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from helpers.shards_corpus import rejects, samples, write_table
from helpers.support import SHARED, needs_shared, unpack
from PIL import Image

from rhostream.loaders.decode.rgb import decode_rgb
from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.loaders.storage.shard_reader import ShardReader
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.manifest import Noise, load_manifest
from rhostream.pipeline.shards.write import ShardsSummary, write_shards

pytestmark = needs_shared
DATA = SHARED / "data"
MANIFESTS = Path(__file__).parents[2] / "data_manifests"


def shards_of(manifest: str, root: Path, workspace: Path, **settings: object) -> ShardsSummary:
    return write_shards(str(workspace), load_manifest(MANIFESTS / f"{manifest}.toml", {"root": str(root), **settings}))


def check_sum_and_duplicates(summary: ShardsSummary, workspace: Path) -> None:
    kept, refused = samples(workspace), rejects(workspace)
    assert summary.entries == len(kept) + len(refused)
    assert Counter(row["reason"] for row in refused) == Counter(summary.rejects)
    assert len({row["key"] for row in kept}) == len(kept)
    sides = defaultdict(set)
    for row in kept:
        if row["split"] not in ("val", "test"):
            sides[row["content_hash"]].add((row["split"], row["fold"]))
    assert all(len(side) == 1 for side in sides.values())


def test_clothing1m(tmp_path: Path) -> None:
    root = unpack("clothing1m")
    summary = shards_of("clothing1m", root, tmp_path / "w", shard_size=1000)
    check_sum_and_duplicates(summary, tmp_path / "w")
    assert summary.rejects == {
        "empty": 1,
        "html": 1,
        "label_clean_only": 141,
        "label_missing": 1,
        "missing": 1,
        "truncated": 1,
    }
    lists = [
        (root / f"{name}_key_list.txt").read_text().split()
        for name in ("noisy_train", "clean_train", "clean_val", "clean_test")
    ]
    assert summary.entries == sum(map(len, lists))
    with (root / "truth.csv").open(newline="") as stream:
        truth = {row["key"]: row for row in csv.DictReader(stream)}
    noisy = []
    for row in samples(tmp_path / "w"):
        known = truth[row["source"]]
        if row["split"] in ("val", "test"):
            assert row["label"] == int(known["true_label"])
        else:
            assert row["label"] == int(known["noisy_label"])
            noisy.append(row["label"] != int(known["true_label"]))
            assert row["clean_label"] in (None, int(known["true_label"]))
    assert 0.35 < np.mean(noisy) < 0.41
    assert Counter(row["ext"] for row in samples(tmp_path / "w"))["png"] == 1  # named .jpg
    assert summary.duplicates.groups == 4


def test_imagefolder_with_copies_in_other_classes(tmp_path: Path) -> None:
    summary = shards_of("imagefolder", unpack("imagefolder"), tmp_path / "w", folds=2, shard_size=1000)
    check_sum_and_duplicates(summary, tmp_path / "w")
    assert summary.rejects == {}
    assert summary.entries == sum(path.is_file() for path in unpack("imagefolder").rglob("*"))
    assert set(summary.samples) == {"train-fold0", "train-fold1"}
    assert summary.duplicates.groups >= 24
    assert summary.duplicates.labels_differ >= 12


def test_clothing_as_a_table_with_its_irregular_labels(tmp_path: Path) -> None:
    summary = shards_of("table", unpack("clothing"), tmp_path / "w", shard_size=1000)
    check_sum_and_duplicates(summary, tmp_path / "w")
    assert summary.entries == 5761
    assert summary.rejects == {"label_missing": 358, "missing": 5}
    assert summary.classes["T-Shirt"] == 1011
    row = samples(tmp_path / "w")[0]
    assert row["width"] == row["width_given"]
    assert "sender_id" in row


def test_dirty_originals(tmp_path: Path) -> None:
    summary = shards_of("table", unpack("dirty"), tmp_path / "w", holdout=0.3)
    check_sum_and_duplicates(summary, tmp_path / "w")
    assert (summary.entries, summary.rejects) == (57, {"empty": 5, "label_missing": 1})
    place = Workspace(tmp_path / "w")
    shards = {shard.name: shard for shard in CorpusMetadata.read(place).shards}
    for row in samples(tmp_path / "w"):
        assert {"jpg": "JPEG", "png": "PNG"}[row["ext"]] == row["format"]
        assert (row["width"], row["height"]) == (row["width_given"], row["height_given"])
        image = decode_rgb(ShardReader(place).read(shards[row["shard"]].tar, row["offset"], row["size"]))
        assert image.size == (row["width"], row["height"])


def test_cifar10_pixels_come_out_as_they_went_in(tmp_path: Path) -> None:
    rows, tiles = [], {}
    with (DATA / "cifar10/labels.csv").open(newline="") as stream:
        listed = [
            row
            for row in csv.DictReader(stream)
            if row["sheet"].removesuffix(".webp").endswith("_1_0")
            or row["sheet"].removesuffix(".webp") == "test_batch_0"
        ]
    for sheet in sorted({row["sheet"].removesuffix(".webp") for row in listed}):
        grid = np.asarray(Image.open(DATA / f"cifar10/{sheet}.webp").convert("RGB"))
        tiles[sheet] = grid.reshape(25, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4).reshape(1000, 32, 32, 3)
    (tmp_path / "corpus").mkdir()
    expected = {}
    for row in listed:
        path = f"{row['split']}-{row['index']}.png"
        expected[path] = tiles[row["sheet"].removesuffix(".webp")][int(row["tile"])]
        Image.fromarray(expected[path]).save(tmp_path / "corpus" / path, compress_level=1)
        rows.append((path, row["label"], row["split"]))
    write_table(tmp_path / "corpus", rows, ("path", "label", "split"))
    summary = shards_of("table", tmp_path / "corpus", tmp_path / "w", options={"split_column": "split"})
    check_sum_and_duplicates(summary, tmp_path / "w")
    assert (summary.entries, summary.rejects, summary.samples["test"]) == (2000, {}, 1000)
    place = Workspace(tmp_path / "w")
    shards = {shard.name: shard for shard in CorpusMetadata.read(place).shards}
    reader = ShardReader(place)
    for row in samples(tmp_path / "w"):
        image = decode_rgb(reader.read(shards[row["shard"]].tar, row["offset"], row["size"]))
        assert (np.asarray(image) == expected[row["source"]]).all()


def test_mnist_through_torchvision_with_label_noise(tmp_path: Path) -> None:
    """The first 600 and 100 images of the real files."""
    raw = tmp_path / "corpus/MNIST/raw"
    raw.mkdir(parents=True)
    labels = {}
    for part, count in (("train", 600), ("t10k", 100)):
        for kind, header, size in (("images-idx3", 16, 784), ("labels-idx1", 8, 1)):
            content = gzip.decompress((DATA / f"mnist/{part}-{kind}-ubyte.gz").read_bytes())
            cut = content[:4] + count.to_bytes(4, "big") + content[8 : header + count * size]
            (raw / f"{part}-{kind}-ubyte").write_bytes(cut)
            if size == 1:
                labels["train" if part == "train" else "test"] = list(cut[8:])
    summary = shards_of("mnist", tmp_path / "corpus", tmp_path / "w", noise=Noise(rate=0.4))
    check_sum_and_duplicates(summary, tmp_path / "w")
    assert (summary.entries, summary.rejects, summary.samples["test"]) == (700, {}, 100)
    moved = []
    for row in samples(tmp_path / "w"):
        split, _, position = row["source"].partition("/")
        assert (row["width"], row["height"]) == (28, 28)
        if row["split"] == "test":
            assert row["label"] == labels[split][int(position)]
        else:
            assert row["clean_label"] == labels[split][int(position)]
            moved.append(row["label"] != row["clean_label"])
    assert 0.33 < np.mean(moved) < 0.47


def test_img2dataset_shards_and_what_it_failed_to_download(tmp_path: Path) -> None:
    summary = shards_of("img2dataset", DATA / "img2dataset", tmp_path / "w", shard_size=100)
    check_sum_and_duplicates(summary, tmp_path / "w")
    assert (summary.entries, sum(summary.samples.values())) == (240, 210)
    assert summary.rejects == {"download_failed": 30}
    kept = samples(tmp_path / "w")
    assert {len(row["key"]) for row in kept} == {7}  # as img2dataset named them
    assert all(row["url"] for row in kept)
