"""Datasets of Hugging Face's package: Parquet of its hub, and folders of `save_to_disk`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.corpora import by_source, corpus, labels
from helpers.hugging_face import CLASSES, FEATURES, table, write_dataset, write_dict, write_hub
from helpers.shards_corpus import contents, rejects, samples
from helpers.support import jpeg, put

from rhostream.errors import ConfigError, CorpusError
from rhostream.pipeline.config.manifest import Manifest
from rhostream.pipeline.corpora.formats import open_corpus
from rhostream.pipeline.shards.write import write_shards

WRITERS = {"hf_parquet": write_hub, "hf_disk": write_dict}
TAGS = {**FEATURES, "label": {"feature": FEATURES["label"], "_type": "List"}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RHO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=list(WRITERS))
def layout(request: pytest.FixtureRequest) -> tuple[str, Callable[..., Path]]:
    """A format, and what writes a dataset in it: a folder, tables by split, and perhaps features."""
    return request.param, WRITERS[request.param]


def test_every_row_is_an_entry_and_bytes_are_as_found(layout, tmp_path: Path) -> None:
    kind, write = layout
    reader = corpus(kind, write(tmp_path / "d", {"train": [table(9), table(8, 9)], "validation": [table(3, 50)]}))
    assert reader.classes == CLASSES
    assert dict(reader.extra_columns) == {"caption": pa.string()}
    found = by_source(reader)
    assert sorted(found) == [*(f"train/{n:08d}" for n in range(17)), *(f"validation/{n:08d}" for n in range(3))]
    for number, source in enumerate(sorted(found)[:17]):
        entry = found[source]
        assert (entry.label, entry.split, entry.extra["caption"]) == (number % 3, "train", f"caption {number}")
        assert reader.read(entry) == jpeg(number)
    assert found["validation/00000002"].split == "val"
    assert reader.read(found["validation/00000002"]) == jpeg(52)


def test_rows_without_bytes_are_read_by_path_or_missing(layout, tmp_path: Path) -> None:
    kind, write = layout
    put(tmp_path / "secret.jpg", jpeg())
    root = tmp_path / "d"
    paths = ["here.jpg", "gone.jpg", "../secret.jpg", str(root / "here.jpg"), None]
    images = [*({"bytes": None, "path": path} for path in paths), None, {"bytes": b"", "path": None}]
    reader = corpus(kind, write(root, {"train": [table(7, image=images)]}))
    put(root / "here.jpg", jpeg(5))
    entries = list(by_source(reader).values())
    assert [reader.read(entries[row]) for row in (0, 3, 6)] == [jpeg(5), jpeg(5), b""]
    for row, told in ((1, "no file 'gone.jpg'"), (2, "leads out of the root"), (4, "no path"), (5, "no path")):
        with pytest.raises(FileNotFoundError, match=f"no bytes, and .*{told}"):
            reader.read(entries[row])


def test_labels_are_numbers_of_the_names_that_features_tell(layout, tmp_path: Path) -> None:
    kind, write = layout
    root = write(tmp_path / "d", {"train": [table(6, label=[0, 2, -1, 3, None, 1])]})
    assert list(labels(corpus(kind, root)).values()) == [
        0,
        2,
        "label_missing",
        "label_out_of_range",
        "label_missing",
        1,
    ]
    chosen = corpus(kind, root, classes=("bird", "cat"))
    assert list(labels(chosen).values())[:2] == [1, 0]
    assert labels(chosen)["train/00000005"] == "label_unknown"


def test_names_that_are_other_numbers_stay_names(layout, tmp_path: Path) -> None:
    kind, write = layout
    features = {**FEATURES, "label": {"names": ["3", "5", "7"], "_type": "ClassLabel"}}
    reader = corpus(kind, write(tmp_path / "d", {"train": [table(3)]}, features))
    assert list(labels(reader).values()) == [0, 1, 2]


def test_classes_without_features_are_the_distinct_labels(layout, tmp_path: Path) -> None:
    kind, write = layout
    names = pa.array(["red", "blue", None]).dictionary_encode()
    reader = corpus(kind, write(tmp_path / "d", {"train": [table(3, label=names)]}, {}))
    assert reader.classes == ("blue", "red")
    assert list(labels(reader).values()) == [1, 0, "label_missing"]


def test_lists_of_classes_are_multi_label(layout, tmp_path: Path) -> None:
    kind, write = layout
    root = write(tmp_path / "d", {"train": [table(4, label=[[2, 0], [], [5], None])]}, TAGS)
    manifest = Manifest(name="t", format=kind, root=str(root), task="multi_label")
    entries = list(open_corpus(manifest).entries())
    assert [entry.reason or entry.label for entry in entries] == [(0, 2), (), "label_out_of_range", "label_missing"]
    with pytest.raises(ConfigError, match=r"column 'label' of .* holds lists of labels: say task = \"multi_label\""):
        corpus(kind, root)


def test_columns_are_named_by_options_and_keys_by_a_column(layout, tmp_path: Path) -> None:
    kind, write = layout
    rows = table(3, id=["a", "b", "c"], width=[1, 2, 3], mask=[b"x", b"y", b"z"])
    rows = rows.rename_columns(["img", "fine", *rows.column_names[2:]])
    root = write(tmp_path / "d", {"train": [rows]}, {})
    reader = corpus(kind, root, image_column="img", label_column="fine", key_column="id", extra=["width"])
    assert list(by_source(reader)) == ["train/a", "train/b", "train/c"]
    assert dict(reader.extra_columns) == {"width_given": pa.int64()}
    assert list(corpus(kind, root, image_column="img", label_column="fine").extra_columns) == [
        "caption",
        "id",
        "width_given",
    ]
    with pytest.raises(CorpusError, match="has no column 'image', only img, fine, caption, id, width, mask: set image"):
        corpus(kind, root)
    with pytest.raises(CorpusError, match=r"column 'caption' of .* is of type string, no image with its bytes"):
        corpus(kind, root, image_column="caption", label_column="fine")
    with pytest.raises(ConfigError, match=r"extra: column 'mask' of .* holds bytes, which no index keeps"):
        corpus(kind, root, image_column="img", label_column="fine", extra=["mask"])


def test_splits_are_chosen_and_told_by_the_manifest(layout, tmp_path: Path) -> None:
    kind, write = layout
    root = write(tmp_path / "d", {"train": [table(2)], "extra": [table(3, 10)]})
    with pytest.raises(CorpusError, match=r"split 'extra' is neither train, val nor test by its name; say which"):
        corpus(kind, root)
    found = by_source(corpus(kind, root, splits={"extra": "train"}))
    assert [(source, entry.split) for source, entry in found.items()] == [(f"extra/{n:08d}", "train") for n in range(3)]
    with pytest.raises(ConfigError, match=r"has no split 'test', only (train, extra|extra, train)"):
        corpus(kind, root, splits={"test": "test"})


def test_dataset_of_one_split_leaves_it_to_the_hash(tmp_path: Path) -> None:
    found = by_source(corpus("hf_disk", write_dataset(tmp_path / "d", [table(3)])))
    assert [(source, entry.split) for source, entry in found.items()] == [(f"{n:08d}", None) for n in range(3)]
    (entry, *_) = corpus("hf_disk", write_dataset(tmp_path / "e", [table(3)], split="test")).entries()
    assert (entry.source, entry.split) == ("test/00000000", "test")
    pq.write_table(table(3), tmp_path / "photos.parquet")
    assert list(by_source(corpus("hf_parquet", tmp_path / "photos.parquet"))) == list(found)


def test_plain_bytes_columns_and_sliced_batches_are_read(tmp_path: Path) -> None:
    images = pa.array([jpeg(n) for n in range(7)], pa.large_binary())
    rows = table(7, image=images).slice(2)
    for reader in (
        corpus("hf_disk", write_dataset(tmp_path / "d", [rows])),
        corpus("hf_parquet", write_hub(tmp_path / "h", {"train": [rows]})),
    ):
        assert [reader.read(entry) for entry in reader.entries()] == [jpeg(n) for n in range(2, 7)]


def test_lost_files_of_a_series_are_told(tmp_path: Path) -> None:
    root = write_hub(tmp_path / "d", {"train": [table(2), table(2), table(2)]})
    (root / "data" / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(CorpusError, match=r"lacks data/train-00001-of-00003\.parquet \(1 of 3\): fetch"):
        corpus("hf_parquet", root)
    disk = write_dataset(tmp_path / "e", [table(2), table(2)])
    (disk / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(CorpusError, match=r"data-00001-of-00002\.arrow is not there: fetch or save the dataset again"):
        corpus("hf_disk", disk)


def test_two_datasets_in_one_root_are_told_apart(tmp_path: Path) -> None:
    write_hub(tmp_path / "d" / "small", {"train": [table(2)]})
    write_hub(tmp_path / "d" / "large", {"train": [table(3)]})
    with pytest.raises(CorpusError, match=r"split 'train' in several folders \(large/data, small/data\): name one"):
        corpus("hf_parquet", tmp_path / "d")
    assert len(by_source(corpus("hf_parquet", tmp_path / "d", files="small/**/*.parquet"))) == 2
    write_hub(tmp_path / "e", {"train": [table(2), table(2, more=[1, 2])]})
    with pytest.raises(CorpusError, match=r"train-00001-of-00002\.parquet has other columns, types or classes than"):
        corpus("hf_parquet", tmp_path / "e")


def test_damaged_files_and_cards_are_told_in_one_line(tmp_path: Path) -> None:
    disk = write_dict(tmp_path / "d", {"train": [table(20)]})
    stream = disk / "train" / "data-00000-of-00001.arrow"
    whole = stream.read_bytes()
    for damaged in (whole[:-8], whole[: len(whole) // 2], b"", b"\0" * 500 + whole[-8:], whole[:2000] + whole[-8:]):
        stream.write_bytes(damaged)
        with pytest.raises(CorpusError, match=r"arrow is (no|a damaged) Arrow stream") as told:
            list(corpus("hf_disk", disk).entries())
        assert "\n" not in str(told.value)
        assert len(str(told.value)) < 700
    (disk / "train" / "state.json").write_text('{"_data_files": 5}')
    with pytest.raises(CorpusError, match=r"state\.json has _data_files 5, which is a list: fetch or save"):
        corpus("hf_disk", disk)
    (disk / "train" / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../../x.arrow"}]}))
    with pytest.raises(CorpusError, match=r"names '\.\./\.\./x\.arrow', which leads out of the root"):
        corpus("hf_disk", disk)
    hub = write_hub(tmp_path / "h", {"train": [table(20)]})
    file = hub / "data" / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(CorpusError, match=r"\.parquet is no Parquet file, or a damaged one"):
        corpus("hf_parquet", hub)


def test_damage_within_a_parquet_column_stops_instead_of_rejecting(tmp_path: Path) -> None:
    hub = write_hub(tmp_path / "h", {"train": [table(20)]})
    reader = corpus("hf_parquet", hub)
    entries = list(reader.entries())
    file = hub / "data" / "train-00000-of-00001.parquet"
    content = bytearray(file.read_bytes())
    content[4:40] = bytes(36)  # the header of the first page
    file.write_bytes(content)
    with pytest.raises(CorpusError, match=r"train-00000-of-00001\.parquet is no Parquet file, or a damaged one"):
        reader.read(entries[0])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "workers"), [("hf_parquet", 2), ("hf_disk", 0)])
def test_shards_hold_the_bytes_and_no_scratch_is_left(kind: str, workers: int, tmp_path: Path, cache: Path) -> None:
    images: list[dict[str, bytes | str | None]] = [{"bytes": jpeg(n), "path": None} for n in range(40)]
    images[3], images[5] = {"bytes": None, "path": "gone.jpg"}, {"bytes": b"<html>", "path": None}
    root = WRITERS[kind](tmp_path / "d", {"train": [table(40, image=images), table(20, 40)], "test": [table(9, 100)]})
    manifest = Manifest(name="t", format=kind, root=str(root), shard_size=16, holdout=0.3)
    summary = write_shards(str(tmp_path / "w"), manifest, workers=workers)
    assert summary.entries == 69 == sum(summary.samples.values()) + sum(summary.rejects.values())
    assert sorted(str(row["reason"]) for row in rejects(tmp_path / "w")) == ["html", "missing"]
    for row in samples(tmp_path / "w"):
        split, number = row["source"].split("/")
        with (tmp_path / "w" / "shards" / f"{row['shard']}.tar").open("rb") as tar:
            tar.seek(row["offset"])
            assert tar.read(row["size"]) == jpeg(int(number) + (100 if split == "test" else 0))
        assert row["class"] == CLASSES[row["label"]]
    assert not list(cache.rglob("*.*"))
    before = contents(tmp_path / "w")
    shard = next((tmp_path / "w" / "index").glob("train-*.parquet"))
    shard.unlink()
    write_shards(str(tmp_path / "w"), manifest, workers=0)
    assert contents(tmp_path / "w") == before


@pytest.mark.slow
def test_memory_does_not_grow_with_a_parquet_file(tmp_path: Path) -> None:
    """40 MB of images in row groups of 1 MB are listed and read in a quarter of that."""
    rows = [
        table(50, image=[{"bytes": bytes([n]) * 20_000 + bytes([i]), "path": None} for i in range(50)])
        for n in range(40)
    ]
    (tmp_path / "d").mkdir()
    with pq.ParquetWriter(tmp_path / "d" / "train.parquet", rows[0].schema, compression="none") as writer:
        for part in rows:
            writer.write_table(part, row_group_size=50)
    code = """if True:
        import sys
        import pyarrow as pa
        from rhostream.pipeline.config.manifest import Manifest
        from rhostream.pipeline.corpora.formats import open_corpus
        reader = open_corpus(Manifest(name="t", format="hf_parquet", root=sys.argv[1], classes=("a", "b", "c")))
        entries = list(reader.entries())
        assert reader.read(entries[1999]) == bytes([39]) * 20_000 + bytes([49])
        print(len(entries), pa.default_memory_pool().max_memory())
    """
    told = subprocess.run([sys.executable, "-c", code, str(tmp_path / "d")], check=True, capture_output=True, text=True)
    count, peak = map(int, told.stdout.split())
    assert count == 2000
    assert peak < 10_000_000


def test_text_columns_of_both_layouts_make_a_corpus_of_texts(layout, tmp_path: Path) -> None:
    kind, write = layout
    texts = [*(f"good text {n}" for n in range(30)), None, "  ", "with \0 nul", "é" * 60]
    columns: dict[str, Any] = {
        "sentence": pa.array(texts, pa.large_string() if kind == "hf_disk" else pa.string()),
        "label": [n % 2 for n in range(len(texts))],
        "idx": range(len(texts)),
    }
    features = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}
    root = write(tmp_path / "d", {"train": [pa.table(columns).slice(2)], "validation": [pa.table(columns)]}, features)
    manifest = Manifest(
        name="t", format=kind, root=str(root), max_text_bytes=100, max_reject_share=0.5, holdout=0.4,
        options={"text_column": "sentence"},
    )  # fmt: skip
    workspace = tmp_path / "w"
    summary = write_shards(str(workspace), manifest, workers=0)
    assert (summary.entries, sum(summary.samples.values())) == (66, 58)
    assert dict(summary.rejects) == {"empty": 4, "nul_bytes": 2, "too_long": 2}
    for row in samples(workspace):
        split, number = row["source"].split("/")
        text = f"good text {int(number) + (2 if split == 'train' else 0)}"
        with (workspace / "shards" / f"{row['shard']}.tar").open("rb") as tar:
            tar.seek(row["offset"])
            assert tar.read(row["size"]).decode() == text == row["excerpt"]
        assert (row["class"], row["idx"]) == (("bad", "good")[row["label"]], int(text.split()[-1]))
    reader = corpus(kind, root, text_column="sentence", extra=[])
    with pytest.raises(CorpusError, match=r"column 'label' of .* is of type int64, no text: set text_column"):
        corpus(kind, root, text_column="label", label_column="idx")
    assert (reader.classes, dict(reader.extra_columns)) == (("bad", "good"), {})


def test_two_text_columns_are_a_pair_of_texts(layout, tmp_path: Path) -> None:
    kind, write = layout
    rows = pa.table(
        {
            "premise": pa.array([b"it rains", b"it \xff", b"it snows", None], pa.binary()),
            "hypothesis": ["the street is wet", "b", "", "d"],
            "label": ["yes", "no", "no", "no"],
        }
    )
    root = write(tmp_path / "d", {"train": [rows]}, {})
    reader = corpus(kind, root, text_column="premise", second_text_column="hypothesis")
    read = [reader.read(entry) for entry in reader.entries()]
    assert read == [b"it rains\x1ethe street is wet", b"it \xff\x1eb", b"", b""]
    with pytest.raises(ConfigError, match="second_text_column is of corpora of texts: give text_column"):
        corpus(kind, root, second_text_column="hypothesis")


def test_a_table_of_images_names_the_format_that_reads_it(tmp_path: Path) -> None:
    hub = write_hub(tmp_path / "h", {"train": [table(20)]})
    file = hub / "data" / "train-00000-of-00001.parquet"
    for options in ({}, {"path_column": "image"}, {"path_column": "caption"}):
        with pytest.raises(ConfigError, match=r"holds bytes in column 'image'.* format = \"hf_parquet\" reads") as told:
            corpus("table", file, **options)
        assert len(str(told.value)) < 400
    assert len(by_source(corpus("table", file, path_column="caption", extra=[]))) == 20
    disk = write_dict(tmp_path / "d", {"train": [table(3)]})
    put(tmp_path / "f" / "train" / "metadata.csv", "file_name,label\na.jpg,cat\n")
    for kind in ("table", "imagefolder"):
        for root, format_ in ((hub, "hf_parquet"), (disk, "hf_disk"), (tmp_path / "f", "hf_imagefolder")):
            with pytest.raises(CorpusError, match=f'format = "{format_}" reads that'):
                corpus(kind, root)


def test_roots_without_a_dataset_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"has neither dataset_dict\.json nor state\.json: name a folder"):
        corpus("hf_disk", tmp_path)
    with pytest.raises(CorpusError, match=r"has no files \*\*/\*\.parquet: correct the root"):
        corpus("hf_parquet", tmp_path)
