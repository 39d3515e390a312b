"""Corpora of image-text pairs: formats, captions that are none, and what the split follows."""

import json
import tarfile
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.pair_corpus import add_member, pair, pairs_manifest, write_pairs, write_pairs_tar

from rhostream.errors import ConfigError
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import resolve_manifest
from rhostream.pipeline.in_place import index_tars
from rhostream.pipeline.shards import write_shards


def rows_of(workspace):
    corpus = CorpusMetadata.read(workspace)
    return [row for shard in corpus.shards for row in workspace.read_table(shard.index).to_pylist()]


def test_pairs_become_shards_of_image_txt_and_json(tmp_path):
    workspace = write_pairs(tmp_path, 40)
    corpus = CorpusMetadata.read(workspace)
    assert (corpus.task, corpus.fields, corpus.classes) == ("pairs", ("image", "text"), ())
    with tarfile.open(workspace.path(corpus.shards[0].tar)) as tar:
        assert {name.partition(".")[2] for name in tar.getnames()} == {"png", "txt", "json"}
        first = next(name for name in tar.getnames() if name.endswith(".txt"))
        assert tar.extractfile(first).read().decode() == pair(int(first[:5]))[1]
    assert {row["text"] for row in rows_of(workspace)} == {pair(number)[1] for number in range(40)}
    assert not {"label", "class"} & {*rows_of(workspace)[0]}


@pytest.mark.parametrize("place", ["txt", "json.caption"])
def test_tars_of_pairs_are_written_and_indexed_alike(tmp_path, place):
    tar = write_pairs_tar(tmp_path / "tars" / "a.tar", range(40))
    options = {"options": {"text": place}}
    write_shards(tmp_path / "shards", pairs_manifest(tmp_path / "tars", **options), workers=0)
    index_tars(tmp_path / "index", [str(tar)], pairs_manifest("", **options), workers=0)
    kept = ("key", "split", "text", "text_hash", "content_hash", "mismatched", "width")
    first, second = (
        sorted(tuple(row[name] for name in kept) for row in rows_of(Workspace(tmp_path / name)))
        for name in ("shards", "index")
    )
    assert first == second
    assert len(first) == 40


@pytest.mark.parametrize("in_place", [False, True])
def test_empty_captions_are_kept_and_bad_ones_refused(tmp_path, in_place):
    tar = write_pairs_tar(tmp_path / "tars" / "a.tar", range(30))
    with tarfile.open(tar, "a") as archive:
        for number, caption in enumerate((b"", b" \n", b"\xff", b"a\0b", None), 100):
            add_member(archive, f"{number:05d}.png", pair(number)[0])
            if caption is not None:
                add_member(archive, f"{number:05d}.txt", caption)
    manifest = pairs_manifest(tmp_path / "tars")
    workspace = Workspace(tmp_path / "workspace")
    summary = index_tars(workspace, [str(tar)], manifest, workers=0) if in_place else write_shards(workspace, manifest)
    assert summary.rejects == {"caption_missing": 1, "not_utf8": 1, "nul_bytes": 1}
    assert summary.entries == sum(summary.samples.values()) + sum(summary.rejects.values()) == 35
    assert summary.empty_captions == CorpusMetadata.read(workspace).counts["empty_captions"] == 2


def test_equal_captions_and_copies_of_uncaptioned_images_share_a_split(tmp_path):
    samples = [(f"{number}/{copy}", pair(number * 2 + copy)[0], f"Shirt  {number}"[copy:].replace("hirt", "Shirt"))
               for number in range(60) for copy in (0, 1)]  # fmt: skip
    samples += [(f"none/{number}/{copy}", pair(500 + number)[0], "") for number in range(60) for copy in (0, 1)]
    write_shards(tmp_path, samples=samples, task="pairs", holdout=0.4, workers=0)
    splits: dict[str, set[str]] = {}
    for row in rows_of(Workspace(tmp_path)):
        splits.setdefault(row["text_hash"] if row["text"] else row["content_hash"], set()).add(row["split"])
    assert all(len(each) == 1 for each in splits.values())
    assert Counter(split for each in splits.values() for split in each).keys() == {"train", "holdout"}


@pytest.mark.parametrize("form", ["csv", "metadata.csv", "metadata.jsonl", "parquet"])
def test_tables_and_hugging_face_folders_hold_pairs(tmp_path, form):
    root = tmp_path / "corpus"
    root.mkdir()
    made = [pair(number) for number in range(30)]
    made[3] = (made[3][0], "", False)
    if form == "parquet":
        table = pa.table({"image": [{"bytes": image, "path": None} for image, _, _ in made],
                          "title": [caption for _, caption, _ in made]})  # fmt: skip
        pq.write_table(table, root / "train.parquet")
        settings = {"format": "hf_parquet", "options": {"text_column": "title"}}
    else:
        for number, (image, _, _) in enumerate(made):
            (root / f"{number}.png").write_bytes(image)
        if form.endswith("csv"):
            name, path = ("captions.csv", "path") if form == "csv" else (form, "file_name")
            lines = [f'{number}.png,"{caption}"' for number, (_, caption, _) in enumerate(made)]
            (root / name).write_text("\n".join([f"{path},title", *lines]))
            format_ = "table" if form == "csv" else "hf_imagefolder"
            settings = {"format": format_, "options": {"text_column": "title"}}
        else:
            lines = [json.dumps({"file_name": f"{number}.png", "text": made[number][1]}) for number in range(30)]
            (root / "metadata.jsonl").write_text("\n".join(lines))
            settings = {"format": "hf_imagefolder", "options": {"text_column": "text"}}
    usual = {"name": "pairs", "task": "pairs", "root": str(root), "holdout": 0.3}
    summary = write_shards(tmp_path / "workspace", resolve_manifest(("test", usual | settings)), workers=0)
    assert {row["text"] for row in rows_of(Workspace(tmp_path / "workspace"))} == {caption for _, caption, _ in made}
    assert (sum(summary.samples.values()), summary.empty_captions) == (30, 1)


def test_clean_tars_are_the_holdout_and_nothing_else_is(tmp_path):
    workspace = write_pairs(tmp_path, 40, wrong=0.5, holdout=20, test_rows=10)
    counts = Counter(row["split"] for row in rows_of(workspace))
    assert counts == {"train": 40, "holdout": 20, "test": 10}
    assert not any(row["mismatched"] for row in rows_of(workspace) if row["split"] != "train")


def test_pairs_that_are_appended_leave_the_first_as_they_were(tmp_path):
    workspace = write_pairs(tmp_path, 40)
    before = {row["key"]: row for row in rows_of(workspace)}
    write_pairs_tar(tmp_path / "corpus" / "more.tar", range(40, 60))
    summary = write_shards(workspace, pairs_manifest(tmp_path / "corpus"), workers=0, append=True)
    assert (summary.added, summary.changed, summary.removed) == (20, 0, 0)
    after = {row["key"]: row for row in rows_of(workspace)}
    assert len(after) == 60
    assert all(after[key] == row for key, row in before.items())


def test_settings_of_labels_are_refused(tmp_path):
    for settings, message in (({"classes": ("a", "b")}, "have no classes"), ({"noise": {"rate": 0.1}}, "noise")):
        with pytest.raises(ConfigError, match=message):
            pairs_manifest(tmp_path, **settings)
    (tmp_path / "labels.csv").write_text("path,label\na.png,b\n")
    with pytest.raises(ConfigError, match="name the column of the captions"):
        write_shards(tmp_path / "w", pairs_manifest(tmp_path, format="table", options={"extra": ()}), workers=0)
