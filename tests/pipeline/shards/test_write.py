"""`rho shards`: nothing is lost, and the split follows the content."""

import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import zlib
from collections import Counter, defaultdict
from pathlib import Path

import duckdb
import numpy as np
import pytest
from helpers.shards_corpus import CLASSES, contents, manifest_of, rejects, samples, write_corpus, write_table
from helpers.support import encoded, jpeg, picture, png, put
from PIL import Image

from rhostream.cli.main import main
from rhostream.errors import ConfigError, CorpusError
from rhostream.loaders.decode.rgb import content_hash, decode_rgb
from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.loaders.storage.shard_reader import ShardReader
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.manifest import Noise
from rhostream.pipeline.shards.write import write_shards
from rhostream.schema import REJECTS, SAMPLES


def test_every_entry_becomes_a_sample_or_reject_with_its_reason(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b""))
    )
    files = {
        "empty": b"",
        "truncated": jpeg(1, (64, 64))[:900],
        "not_an_image": b"hello, this is text",
        "html": b"\n<!DOCTYPE html><html>404</html>",
        "decompression_bomb": bomb,
    }
    rows = [("gone.jpg", "cat"), ("photos", "cat"), ("photos/0/0,0.jpg", "cat")]
    for reason, content in files.items():
        put(tmp_path / "corpus" / f"bad/{reason}.jpg", content)
        rows.append((f"bad/{reason}.jpg", "dog"))
    for reason, label in (("label_missing", ""), ("label_unknown", "horse"), ("label_out_of_range", "3")):
        put(tmp_path / "corpus" / f"bad/{reason}.jpg", jpeg(7))
        rows.append((f"bad/{reason}.jpg", label))
    corpus = write_corpus(tmp_path / "corpus", extra_rows=rows)
    summary = write_shards(str(tmp_path / "w"), manifest_of(corpus), workers=0)
    expected = {
        f"bad/{reason}.jpg": reason for reason in (*files, "label_missing", "label_unknown", "label_out_of_range")
    }
    expected |= {"gone.jpg": "missing", "photos": "unreadable", "photos/0/0,0.jpg": "duplicate_key"}
    refused = rejects(tmp_path / "w")
    assert {row["source"]: row["reason"] for row in refused} == expected
    assert all(row["detail"] and row["key"] for row in refused)
    assert not any(str(tmp_path) in str(row["detail"]) for row in refused)
    assert summary.entries == 60 + len(rows) == len(samples(tmp_path / "w")) + len(refused)
    assert (sum(summary.samples.values()), sum(summary.rejects.values())) == (60, len(rows))
    counts = CorpusMetadata.read(Workspace(tmp_path / "w")).counts
    assert (counts["entries"], counts["samples"], counts["rejects"]) == (60 + len(rows), 60, len(rows))


def test_the_index_says_what_every_image_is_and_where(corpus: Path, finished: Path) -> None:
    place = Workspace(finished)
    metadata = CorpusMetadata.read(place)
    reader = ShardReader(place)
    assert metadata.classes == CLASSES
    seen = 0
    for shard in metadata.shards:
        table = place.read_table(shard.index)
        assert table.schema.remove_metadata() == SAMPLES
        assert table.num_rows == shard.rows
        with tarfile.open(place.path(shard.tar)) as tar:
            members = tar.getmembers()
            assert all((m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) == (0, 0, 0, "", "", 0o644) for m in members)
            names = [member.name for member in members]
            for number, row in enumerate(table.to_pylist()):
                seen += 1
                assert (row["row"], row["shard"], row["split"], row["fold"]) == (number, shard.name, shard.split, -1)
                assert names[3 * number : 3 * number + 3] == [f"{row['key']}.{ext}" for ext in ("jpg", "cls", "json")]
                data = reader.read(shard.tar, row["offset"], row["size"])
                assert data == (corpus / row["source"]).read_bytes()
                assert row["content_hash"] == content_hash(data)
                assert (row["width"], row["height"]) == decode_rgb(data).size
                assert row["class"] == CLASSES[row["label"]]
                assert tar.extractfile(members[3 * number + 1]).read() == str(row["label"]).encode()
                described = json.loads(tar.extractfile(members[3 * number + 2]).read())
                assert described == {name: row[name] for name in ("key", "source", "label", "class", "split", "fold")}
    assert seen == 60
    assert place.read_table("rejects/000000.parquet").schema.remove_metadata() == REJECTS


def test_duckdb_alone_reads_every_table(finished: Path) -> None:
    found = duckdb.sql(f"SELECT split, count(*) FROM '{finished}/index/*.parquet' GROUP BY 1").fetchall()
    assert sum(count for _, count in found) == 60
    assert {split for split, _ in found} == {"train", "holdout"}
    assert duckdb.sql(f"SELECT count(*) FROM '{finished}/rejects/*.parquet'").fetchall() == [(0,)]


@pytest.mark.slow
def test_shards_open_in_webdataset_and_in_timm(finished: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    readers = pytest.importorskip("timm.data.readers.reader_wds")
    expected = {row["key"]: row for row in samples(finished) if row["split"] == "train"}
    urls = sorted(str(path) for path in (finished / "shards").glob("train-*.tar"))
    found = {}
    for sample in (
        webdataset.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("__key__", "jpg", "cls", "json")
    ):
        key, image, label, described = sample
        assert image.size == (expected[key]["width"], expected[key]["height"])
        assert described["label"] == label
        found[key] = label
    assert found == {key: row["label"] for key, row in expected.items()}

    last = int(urls[-1][-10:-4])
    split = f"train-{{000000..{last:06d}}}.tar|{len(expected)}"
    reader = readers.ReaderWds(str(finished / "shards"), split=split, is_training=False)
    assert Counter(label for _, label in reader) == Counter(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("folds", [0, 3])
def test_any_number_of_workers_gives_the_same_bytes(corpus: Path, tmp_path: Path, folds: int) -> None:
    for workers in (0, 1, 3):
        settings = {"folds": folds} if folds else {}
        write_shards(str(tmp_path / str(workers)), manifest_of(corpus, **settings), workers=workers)
    assert contents(tmp_path / "0") == contents(tmp_path / "1") == contents(tmp_path / "3")
    splits = Counter((row["split"], row["fold"]) for row in samples(tmp_path / "3"))
    assert set(splits) == ({("train", 0), ("train", 1), ("train", 2)} if folds else {("train", -1), ("holdout", -1)})


@pytest.mark.parametrize("settings", [{}, {"folds": 2}, {"folds": 2, "holdout": 0.3}], ids=["holdout", "folds", "both"])
def test_exact_duplicates_are_on_one_side(tmp_path: Path, settings: dict[str, float]) -> None:
    corpus = write_corpus(tmp_path / "corpus", images=40)
    rows = [(f"photos/{number % 7}/{number},{number * 31}.jpg", "cat") for number in range(40)]
    for copy in range(3):
        for number in range(0, 40, 2):
            put(corpus / f"copies/{copy}-{number}.png", jpeg(number))  # under another name and label
            rows.append((f"copies/{copy}-{number}.png", "dog"))
    write_table(corpus, rows)
    summary = write_shards(str(tmp_path / "w"), manifest_of(corpus, **settings), workers=0)
    sides = defaultdict(set)
    for row in samples(tmp_path / "w"):
        sides[row["content_hash"]].add((row["split"], row["fold"]))
    assert len(sides) == 40
    assert all(len(side) == 1 for side in sides.values())
    there = {("holdout", -1)} if "holdout" in settings or not settings else set()
    folds = {("train", 0), ("train", 1)} if settings else {("train", -1)}
    assert {next(iter(side)) for side in sides.values()} == there | folds
    assert (summary.duplicates.groups, summary.duplicates.labels_differ) == (20, 20)


@pytest.mark.slow
def test_a_sample_added_later_moves_no_other(tmp_path: Path) -> None:
    def sides(images: int, **settings: object) -> dict[object, object]:
        corpus = write_corpus(tmp_path / f"corpus-{images}", images=images)
        workspace = tmp_path / f"w-{images}-{sorted(settings.items())}"
        write_shards(str(workspace), manifest_of(corpus, **settings), workers=0)
        return {row["key"]: (row["split"], row["fold"]) for row in samples(workspace)}

    for settings in ({}, {"folds": 3}):
        before, after = sides(60, **settings), sides(75, **settings)
        assert {key: after[key] for key in before} == before
        assert len(after) == 75
    reseeded = sides(60, seed=1)
    assert reseeded.keys() == sides(60).keys()
    assert reseeded != sides(60)


def test_official_splits_win_and_their_training_copies_are_counted(tmp_path: Path) -> None:
    rows = []
    for number in range(60):
        split = {0: "test", 1: "val", 2: "train"}.get(number % 10, "")
        put(tmp_path / f"corpus/{number}.jpg", jpeg(3 if number == 10 else number))  # 10 (test) shows what 3 shows
        rows.append((f"{number}.jpg", CLASSES[number % 3], split))
    write_table(tmp_path / "corpus", rows, ("path", "label", "official"))
    manifest = manifest_of(tmp_path / "corpus", options={"split_column": "official"})
    summary = write_shards(str(tmp_path / "w"), manifest, workers=0)
    for row in samples(tmp_path / "w"):
        official = {0: "test", 1: "val"}.get(int(row["source"].removesuffix(".jpg")) % 10)
        assert row["split"] == official or (official is None and row["split"] in ("train", "holdout"))
    assert (summary.samples["test"], summary.samples["val"]) == (6, 6)
    assert summary.duplicates.across_official_splits == 1


def test_extra_columns_and_the_label_before_noise_are_kept(tmp_path: Path) -> None:
    rows = []
    for number in range(40):
        put(tmp_path / f"corpus/{number}.jpg", jpeg(number))
        rows.append((f"{number}.jpg", CLASSES[number % 3], str(number * 10), "grün" if number % 2 else ""))
    write_table(tmp_path / "corpus", rows, ("path", "label", "price", "color"))
    manifest = manifest_of(tmp_path / "corpus", noise=Noise(rate=0.5))
    write_shards(str(tmp_path / "w"), manifest, workers=0)
    found = samples(tmp_path / "w")
    assert list(found[0]) == [*SAMPLES.names, "price", "color", "clean_label"]
    for row in found:
        number = int(row["source"].removesuffix(".jpg"))
        assert row["clean_label"] == number % 3
        assert row["price"] == number * 10
    assert 8 < sum(row["label"] != row["clean_label"] for row in found) < 32
    with tarfile.open(next((tmp_path / "w/shards").glob("train-*.tar"))) as tar:
        described = json.loads(tar.extractfile(tar.getmembers()[2]).read())
    assert {"price", "color", "clean_label"} < described.keys()


def test_images_are_stored_as_found_under_their_real_extension(tmp_path: Path) -> None:
    kinds = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tif": "TIFF"}
    rows = []
    for number in range(48):
        extension = list(kinds)[number % 6]
        put(tmp_path / f"corpus/{number}.dat", encoded(picture(number), kinds[extension]))
        rows.append((f"{number}.dat", CLASSES[number % 3]))
    write_table(tmp_path / "corpus", rows)
    write_shards(str(tmp_path / "w"), manifest_of(tmp_path / "corpus"), workers=0)
    for row in samples(tmp_path / "w"):
        assert row["ext"] == list(kinds)[int(row["source"].removesuffix(".dat")) % 6]
        assert row["size"] == (tmp_path / "corpus" / row["source"]).stat().st_size


def test_max_side_shrinks_larger_images_upright_and_spares_others(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture(1, (120, 60)).save(buffer, "JPEG", exif=exif)
    files = {"rotated.jpg": buffer.getvalue(), "large.png": png(2, (90, 200), "RGBA"), "small.jpg": jpeg(3, (40, 20))}
    for name, content in files.items():
        put(tmp_path / "corpus" / name, content)
    corpus = write_corpus(tmp_path / "corpus", extra_rows=[(name, "cat") for name in files])
    write_shards(str(tmp_path / "w"), manifest_of(corpus, max_side=40), workers=0)
    place, found = Workspace(tmp_path / "w"), {row["source"]: row for row in samples(tmp_path / "w")}
    shards = {shard.name: shard for shard in CorpusMetadata.read(place).shards}
    for name, size, extension in (("rotated.jpg", (20, 40), "jpg"), ("large.png", (18, 40), "png")):
        row = found[name]
        assert ((row["width"], row["height"]), row["ext"]) == (size, extension)
        data = ShardReader(place).read(shards[row["shard"]].tar, row["offset"], row["size"])
        stored = Image.open(io.BytesIO(data))
        assert stored.size == size == decode_rgb(data).size
        expected = decode_rgb(files[name]).resize(size, Image.Resampling.LANCZOS)
        difference = np.abs(np.asarray(decode_rgb(data), int) - np.asarray(expected, int)).mean()
        assert difference < (12 if extension == "jpg" else 2)
    assert found["small.jpg"]["size"] == len(files["small.jpg"])


def test_a_dry_run_counts_and_writes_nothing(corpus: Path, tmp_path: Path) -> None:
    summary = write_shards(str(tmp_path / "w"), manifest_of(corpus), dry_run=True)
    assert not (tmp_path / "w").exists()
    assert (summary.entries, summary.samples, summary.units) == (60, {"train": 60}, 4)
    assert summary.classes == {"cat": 20, "dog": 20, "bird": 20}


def test_a_mostly_bad_corpus_stops_with_the_dominating_reason(corpus: Path, tmp_path: Path) -> None:
    bad = write_corpus(tmp_path / "bad", 10, [(f"gone/{number}.jpg", "cat") for number in range(20)])
    for workers in (0, 2):
        with pytest.raises(CorpusError, match=r"as 'missing', for instance 'gone/.*max_reject_share"):
            write_shards(str(tmp_path / "w"), manifest_of(bad), workers=workers)
        assert not (tmp_path / "w/corpus.json").exists()
    assert write_shards(str(tmp_path / "w2"), manifest_of(bad, max_reject_share=0.9), workers=0).rejects == {
        "missing": 20
    }
    unlabeled = write_corpus(tmp_path / "unlabeled", 10, [(f"{number}.jpg", "horse") for number in range(20)])
    with pytest.raises(CorpusError, match="as 'label_unknown'"):
        write_shards(str(tmp_path / "w3"), manifest_of(unlabeled))
    assert not (tmp_path / "w3").exists()


def test_a_corpus_that_cannot_be_trained_on_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="1 class"):
        write_shards(str(tmp_path / "w"), manifest_of(corpus, classes=("cat",)))
    few = write_corpus(tmp_path / "few", images=3)
    with pytest.raises(CorpusError, match="no sample is in holdout"):
        write_shards(str(tmp_path / "w"), manifest_of(few, holdout=1e-6), workers=0)
    assert not (tmp_path / "w/corpus.json").exists()
    write_table(tmp_path / "none", [])
    with pytest.raises(CorpusError):
        write_shards(str(tmp_path / "w"), manifest_of(tmp_path / "none"))
    with pytest.raises(ConfigError, match="format"):
        write_shards(str(tmp_path / "w"), manifest_of(corpus, format="tabel"))


def test_a_remote_workspace_holds_the_same_bytes(corpus: Path, finished: Path) -> None:
    write_shards("memory://shards-test", manifest_of(corpus), workers=0)
    place = Workspace("memory://shards-test")
    for name in contents(finished):
        assert place.read_bytes(name) == (finished / name).read_bytes(), name
    assert write_shards(place, manifest_of(corpus), workers=0).units_made == 0


def test_unusual_file_names_are_kept_as_source(tmp_path: Path) -> None:
    names = [
        "a b",
        "comma,s",
        "dots.in.name",
        "-dash",
        "写真",
        "quote'\"",
        "new\nline",
        "tab\t",
        os.fsdecode(b"not-utf8-\xff"),
    ]
    for label in ("x", "y"):
        for number, name in enumerate(names * 3):
            put(tmp_path / "corpus" / label / f"{name}-{number}.jpg", jpeg(number + 100 * (label == "y")))
    manifest = manifest_of(tmp_path / "corpus", format="imagefolder", classes=())
    summary = write_shards(str(tmp_path / "w"), manifest, workers=0)
    assert (summary.entries, sum(summary.samples.values())) == (54, 54)
    assert {row["source"] for row in samples(tmp_path / "w")} >= {"x/写真-4.jpg", "y/new\nline-6.jpg", "x/a b-0.jpg"}
    with tarfile.open(next((tmp_path / "w/shards").glob("train-*.tar"))) as tar:
        assert all(
            set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
            for name in tar.getnames()
        )


@pytest.mark.slow
def test_workers_need_no_torch() -> None:
    code = (
        "import sys, rhostream.pipeline.shards.write, rhostream.pipeline.jobs.units\n"
        "from rhostream.pipeline.corpora import clothing1m, imagefolder, table, webdataset\n"
        "sys.exit('torch' in sys.modules or 'duckdb' in sys.modules or 'click' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_the_command_prints_the_sum_and_json(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "tiny.toml", 'format = "table"\nclasses = ["cat", "dog", "bird"]\nshard_size = 16\nholdout = 0.3\n')

    def called(*arguments: str) -> tuple[object, str, str]:
        """Its exit code, and what it says on stdout and stderr."""
        places = ["--manifest", str(tmp_path / "tiny.toml"), "--root", str(corpus), "--workspace", str(tmp_path / "w")]
        monkeypatch.setattr(sys, "argv", ["rho", "shards", *places, "--workers", "0", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    code, text, _ = called()
    assert code == 0
    counts = {tuple(line.split()[:-1]): int(line.split()[-1]) for line in text.splitlines()[:-1]}
    assert counts[("entries",)] == counts[("=", "samples")] + counts[("+", "rejects")] == 60
    assert counts[("train",)] + counts[("holdout",)] == 60
    said = json.loads(called("--json")[1])
    assert said["entries"] == sum(said["samples"].values()) + sum(said["rejects"].values()) == 60
    code, _, refused = called("--folds", "2")
    assert (code, len(refused.splitlines())) == (1, 1)
