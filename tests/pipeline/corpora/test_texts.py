"""Corpora of texts: tables and tars, what is refused, and what the split follows."""

import io
import json
import tarfile
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.texts import text_manifest, write_table, write_texts

from rhostream.errors import ConfigError, CorpusError
from rhostream.loaders.decode import PAIR_SEPARATOR
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage import ShardReader, Workspace
from rhostream.pipeline.config import resolve_manifest
from rhostream.pipeline.in_place import index_tars
from rhostream.pipeline.shards import write_shards


def stored(workspace):
    """The index rows of all shards, each with its stored bytes."""
    corpus, reader, rows = CorpusMetadata.read(workspace), ShardReader(workspace), []
    for shard in corpus.shards:
        for row in workspace.read_table(shard.index).to_pylist():
            rows.append(row | {"bytes": reader.read(shard.tar, row["offset"], row["size"])})
    return rows


def made(tmp_path, content, name="texts.csv", **settings):
    (tmp_path / "corpus").mkdir(exist_ok=True)
    (tmp_path / "corpus" / name).write_bytes(content)
    workspace = Workspace(tmp_path / "workspace")
    options = {"split_column": "", **settings.pop("options", {})}
    manifest = text_manifest(tmp_path / "corpus", options=options, max_reject_share=0.9, **settings)
    return workspace, write_shards(workspace, manifest, workers=0, overwrite=True)


def test_table_of_texts_becomes_shards_of_txt_and_cls(tmp_path):
    workspace = write_texts(tmp_path, 40, test_rows=10)
    corpus = CorpusMetadata.read(workspace)
    assert corpus.fields == ("text",)
    assert corpus.counts["entries"] == 50
    rows = stored(workspace)
    assert Counter(row["split"] == "test" for row in rows) == {True: 10, False: 40}
    assert all(row["ext"] == "txt" and row["excerpt"] == row["bytes"].decode() for row in rows)
    shard = corpus.shards[0]
    with tarfile.open(workspace.path(shard.tar)) as tar:
        assert {name.partition(".")[2] for name in tar.getnames()} == {"txt", "cls", "json"}


def test_bad_texts_are_refused_with_their_reasons(tmp_path):
    good = b"".join(b"fine text number %d,%d\n" % (number, number % 2) for number in range(40))
    bad = b'   ,1\n"",0\nnot \xff utf,1\nwith \x00 nul,0\n' + b"x" * 300 + b",1\nwithout label,\nstrange,2\n"
    workspace, summary = made(
        tmp_path, b"text,label\n" + good + bad, classes=("0", "1"), max_text_bytes=200, options={"quotes": True}
    )
    assert summary.rejects == {
        "empty": 2, "not_utf8": 1, "nul_bytes": 1, "too_long": 1, "label_missing": 1, "label_out_of_range": 1
    }  # fmt: skip
    assert summary.entries == sum(summary.samples.values()) + sum(summary.rejects.values()) == 47
    assert len(stored(workspace)) == 40


def test_copies_that_differ_in_case_and_space_share_a_split(tmp_path):
    lines = [f"{text},{number % 2}" for number in range(60) for text in (f"Words  of {number}", f"words of {number} ")]
    lines[1] = "words of 0 ,1"
    workspace, summary = made(tmp_path, ("text,label\n" + "\n".join(lines)).encode())
    splits: dict[str, set[str]] = {}
    for row in stored(workspace):
        splits.setdefault(row["normalized_hash"], set()).add(row["split"])
    assert len(splits) == 60
    assert all(len(each) == 1 for each in splits.values())
    assert (summary.duplicates.groups, summary.duplicates.labels_differ) == (60, 1)


def test_pair_of_texts_is_stored_as_one(tmp_path):
    rows = "".join(f"premise {number},claim {number},{number % 2}\n" for number in range(30)) + ",claim,1\n"
    workspace, summary = made(tmp_path, ("text,other,label\n" + rows).encode(), options={"second_text_column": "other"})
    assert summary.rejects == {"empty": 1}
    first = min(stored(workspace), key=lambda row: int(row["bytes"].split()[-1]))
    assert first["bytes"].decode() == f"premise 0{PAIR_SEPARATOR}claim 0"
    assert first["excerpt"] == "premise 0 | claim 0"


def test_files_without_names_or_quotes_are_read_by_column_names(tmp_path):
    content = "".join(f'a\t{number % 2}\t"Sentence {number} begins so\n' for number in range(30)).encode()
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "dev.tsv").write_bytes(b"a\t1\tA dev sentence\n")
    options = {"file": "*.tsv", "columns": ("origin", "label", "text"), "quotes": False}
    options["file_splits"] = {"dev*": "test"}
    workspace, summary = made(tmp_path, content, "train.tsv", classes=("0", "1"), options=options)
    assert summary.samples["test"] == 1
    assert sum(row["bytes"].startswith(b'"Sentence') for row in stored(workspace)) == 30


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_parquet_and_json_lines_hold_texts_too(tmp_path, form):
    texts, labels = [f"text {number} – ü" for number in range(20)], [number % 2 for number in range(20)]
    if form == "parquet":
        buffer = io.BytesIO()
        pq.write_table(pa.table({"text": texts, "label": labels, "id": [f"d{n}" for n in range(20)]}), buffer)
        content = buffer.getvalue()
    else:
        lines = (json.dumps({"text": texts[n], "label": labels[n], "id": f"d{n}"}) for n in range(20))
        content = "\n".join(lines).encode()
    workspace, _ = made(tmp_path, content, f"texts.{form}", options={"key_column": "id"})
    assert {row["source"]: row["bytes"].decode() for row in stored(workspace)} == {
        f"d{number}": text for number, text in enumerate(texts)
    }


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"text": "a", "label": "1\xff", "id": "x"}', "column 'label'"),
        (b'{"text": "a", "label": "1", "id": "\xff"}', "column 'id'"),
        (b'{"text": "a", "label": "1", "i\xff": "x"}', "codec"),
        (b'{"text": "a", "label": "1", "id": "x", "more": {"b\xff": 1}}', "codec"),
    ],
)
def test_cells_and_names_that_are_not_utf8_are_told(tmp_path, line, told):
    lines = [b'{"text": "text %d", "label": "%d", "id": "d%d"}' % (number, number % 2, number) for number in range(20)]
    with pytest.raises(CorpusError, match=rf"texts.jsonl cannot be read as JSONL .*{told}.* write the file again in"):
        made(tmp_path, b"\n".join([*lines, line]), "texts.jsonl", options={"key_column": ""})
    assert not (tmp_path / "workspace" / "shards").exists()


def text_tar(path, count=40):
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            document = json.dumps({"body": f"body {number}", "label": number % 2}).encode()
            text = b"" if number == 3 else b"\xff" if number == 4 else b"text %d" % number
            for name, data in ((f"{number}.txt", text), (f"{number}.json", document)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("lonely.json")
        info.size = len(document)
        tar.addfile(info, io.BytesIO(document))


def tar_manifest(root, **options):
    settings = {"name": "tars", "format": "webdataset", "root": str(root), "holdout": 0.4}
    options = {"text": "txt", "label": "json.label"} | options
    return resolve_manifest(("test", settings | {"options": options}))


def test_tars_of_texts_are_written_and_indexed_alike(tmp_path):
    text_tar(tmp_path / "a.tar")
    shards, index = Workspace(tmp_path / "shards"), Workspace(tmp_path / "index")
    summary = write_shards(shards, tar_manifest(tmp_path), workers=0)
    assert summary.rejects == {"empty": 1, "missing": 1, "not_utf8": 1}
    in_place = index_tars(index, [str(tmp_path / "a.tar")], tar_manifest(""), workers=0)
    assert in_place.rejects == summary.rejects
    kept = ("key", "split", "label", "excerpt", "bytes", "content_hash", "normalized_hash")
    first, second = ([tuple(row[name] for name in kept) for row in stored(each)] for each in (shards, index))
    assert sorted(first) == sorted(second)


def test_text_inside_a_json_is_written_and_not_indexed(tmp_path):
    text_tar(tmp_path / "a.tar")
    workspace = Workspace(tmp_path / "workspace")
    summary = write_shards(workspace, tar_manifest(tmp_path, text="json.body"), workers=0)
    assert summary.rejects == {}
    assert {row["bytes"] for row in stored(workspace)} == {b"body %d" % number for number in range(40)}
    with pytest.raises(ConfigError, match="write shards of these tars"):
        index_tars(tmp_path / "other", [str(tmp_path / "a.tar")], tar_manifest("", text="json.body"), workers=0)


def test_shards_of_texts_are_the_same_bytes_again(tmp_path):
    root = tmp_path / "corpus"
    write_table(root, 50)
    for name in ("one", "two"):
        write_shards(tmp_path / name, text_manifest(root), workers=0)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*") if path.is_file())
    assert files
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
