"""`rho thumbnails`: thumbnails beside every shard, made once, of the shard as it is, and refused where they are not."""

import hashlib
import json
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from helpers.shards_corpus import contents, write_corpus
from helpers.texts import write_texts
from helpers.tiny import rewrite_shard, write_corpus_card, write_workspace

from rhostream.cli.main import rho
from rhostream.errors import ConfigError, ShardError, WorkspaceError
from rhostream.loaders.decode.rgb import content_hash, decode_rgb
from rhostream.loaders.index.corpus_metadata import SHARD_DIGEST_KEY, CorpusMetadata, read_shard_rows
from rhostream.loaders.index.thumbnails import (
    THUMBNAIL_INDEX,
    THUMBNAIL_KEY,
    Thumbnails,
    read_thumbnail_rows,
    thumbnail_index,
    thumbnail_tar,
)
from rhostream.loaders.storage.shard_reader import ShardReader
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.jobs.lock import exclusive_lock
from rhostream.pipeline.thumbnails.write import ThumbnailsSummary, write_thumbnails

NAME = "6-raw"


def test_texts_have_no_thumbnails(tmp_path: Path) -> None:
    workspace = write_texts(tmp_path, 20, test_rows=0)
    with pytest.raises(ConfigError, match="has texts, not images: tokenize them"):
        make(workspace)
    assert not workspace.exists("thumbnails")


def make(workspace: Workspace, **settings: Any) -> ThumbnailsSummary:
    return write_thumbnails(workspace, ThumbnailsConfig(**{"size": 6, "format": "raw", "workers": 0} | settings))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Train shards of 5, 4 and 3 samples and a test shard of 2, images of 8x8 pixels."""
    return write_workspace(tmp_path / "w", (5, 4, 3), test_rows=2)


def files(workspace: Workspace) -> dict[str, str]:
    return contents(Path(workspace.path("thumbnails")))


def rewrite_metadata(workspace: Workspace, **values: Any) -> CorpusMetadata:
    write_corpus_card(workspace, workspace.read_json("corpus.json") | values)
    return CorpusMetadata.read(workspace)


@pytest.mark.parametrize(("thumbnail_format", "ext"), [("jpeg", "jpg"), ("raw", "ppm")])
def test_every_sample_has_its_thumbnail_in_shard_order(workspace: Workspace, thumbnail_format: str, ext: str) -> None:
    summary = make(workspace, format=thumbnail_format)
    corpus, reader = CorpusMetadata.read(workspace), ShardReader(workspace)
    spec = Thumbnails.read(workspace, corpus, summary.name)
    assert (spec.name, spec.splits, spec.rows) == (f"6-{thumbnail_format}", ("train",), 12)
    stored = 0
    for shard in corpus.split("train"):
        rows = read_shard_rows(workspace, shard)
        thumbnail_files = read_thumbnail_rows(workspace, spec.name, rows)
        with tarfile.open(workspace.path(thumbnail_files.tar)) as tar:
            members = tar.getmembers()
        assert [member.name for member in members] == [f"{key}.{ext}" for key in rows.keys.to_pylist()]
        assert [member.offset_data for member in members] == thumbnail_files.offsets.tolist()
        assert {(member.mtime, member.uid, member.uname, member.mode) for member in members} == {(0, 0, "", 0o644)}
        for row, digest in enumerate(thumbnail_files.hashes.to_pylist()):
            data = reader.read(thumbnail_files.tar, int(thumbnail_files.offsets[row]), int(thumbnail_files.sizes[row]))
            assert content_hash(data) == digest
            pixels = np.asarray(decode_rgb(data))
            assert pixels.shape == (6, 6, 3)
            number, label = int(rows.keys[row].as_py()[1:]), int(rows.labels[row])
            assert abs(float(pixels.mean()) - (80 * label + 29)) < 12, number  # the class is its brightness
        stored += Path(workspace.path(thumbnail_files.tar)).stat().st_size
    assert (spec.bytes, summary.bytes) == (stored, stored)
    originals = sum(int(read_shard_rows(workspace, shard).sizes.sum()) for shard in corpus.split("train"))
    assert summary.original_bytes == originals


def test_the_files_are_flat_parquet_with_the_promised_columns(workspace: Workspace) -> None:
    make(workspace)
    table = workspace.read_table(thumbnail_index(NAME, "train-000000"))
    assert table.schema.equals(THUMBNAIL_INDEX)
    assert table.schema.metadata[SHARD_DIGEST_KEY] == b"train-000000"
    assert json.loads(table.schema.metadata[THUMBNAIL_KEY])["size"] == 6


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_writes_the_same_bytes(workspace: Workspace, tmp_path: Path, workers: int) -> None:
    make(workspace)
    other = write_workspace(tmp_path / "other", (5, 4, 3), test_rows=2)
    make(other, workers=workers)
    assert files(other) == files(workspace)


def test_existing_thumbnails_stay_missing_ones_are_made(workspace: Workspace) -> None:
    assert make(workspace).shards_made == 3
    expected = files(workspace)
    assert make(workspace).shards_made == 0
    workspace.remove(thumbnail_index(NAME, "train-000001"))
    workspace.remove(thumbnail_tar(NAME, "train-000002"))
    assert make(workspace).shards_made == 2
    tar = Path(workspace.path(thumbnail_tar(NAME, "train-000000")))
    tar.write_bytes(tar.read_bytes()[:-512])
    assert make(workspace).shards_made == 1
    workspace.write_bytes(thumbnail_index(NAME, "train-000000"), b"half a Parquet")
    assert make(workspace).shards_made == 1
    assert make(workspace, overwrite=True).shards_made == 3
    assert files(workspace) == expected


def test_a_part_of_other_settings_is_made_anew(workspace: Workspace) -> None:
    make(workspace)
    expected = files(workspace)
    name = thumbnail_index(NAME, "train-000001")
    table = workspace.read_table(name)
    settings = json.loads(table.schema.metadata[THUMBNAIL_KEY]) | {"quality": 50}
    metadata = {**table.schema.metadata, THUMBNAIL_KEY: json.dumps(settings).encode()}
    workspace.write_table(name, table.replace_schema_metadata(metadata))
    assert make(workspace).shards_made == 1
    assert files(workspace) == expected


def test_several_thumbnails_stand_side_by_side(workspace: Workspace) -> None:
    make(workspace)
    expected = files(workspace)
    assert make(workspace, size=4, format="jpeg").shards_made == 3
    assert files(workspace).items() > expected.items()
    assert workspace.names("thumbnails") == ["4-jpeg", NAME]


def test_a_split_is_added_without_touching_the_others(workspace: Workspace) -> None:
    make(workspace)
    summary = make(workspace, splits=("test",))
    assert (summary.splits, summary.rows, summary.shards_made) == (("test", "train"), 14, 1)
    assert make(workspace).splits == ("test", "train")
    with pytest.raises(WorkspaceError, match=r"no split 'tset'; there is test, train"):
        make(workspace, splits=("tset",))


def test_thumbnails_of_former_shards_are_refused_until_made_again(workspace: Workspace) -> None:
    make(workspace)
    rewrite_shard(workspace, "train-000001", "other labels")
    shards = workspace.read_json("corpus.json")["shards"][1:]
    samples = sum(shard["rows"] for shard in shards)
    corpus = rewrite_metadata(workspace, shards=shards, counts={"entries": samples, "samples": samples, "rejects": 0})
    with pytest.raises(WorkspaceError, match="of another split of the corpus than the shards: make the thumbnails"):
        Thumbnails.read(workspace, corpus, NAME)
    rows = read_shard_rows(workspace, corpus.split("train")[0])
    with pytest.raises(WorkspaceError, match=r"describes other samples .*size 6, format raw, split train"):
        read_thumbnail_rows(workspace, NAME, rows)
    assert make(workspace).shards_made == 1
    assert Thumbnails.read(workspace, corpus, NAME).fingerprint == corpus.fingerprint
    assert len(read_thumbnail_rows(workspace, NAME, rows).sizes) == len(rows)
    assert not workspace.exists(thumbnail_tar(NAME, "train-000000"))
    assert not workspace.exists(thumbnail_index(NAME, "train-000000"))


def test_missing_thumbnails_are_told_with_the_command(workspace: Workspace) -> None:
    corpus = CorpusMetadata.read(workspace)
    with pytest.raises(
        WorkspaceError, match=r"has no thumbnails/6-raw/thumbnails.json \(there are: none\): make the thumbnails"
    ):
        Thumbnails.read(workspace, corpus, NAME)
    make(workspace)
    with pytest.raises(WorkspaceError, match=r"\(there are: 6-raw\)"):
        Thumbnails.read(workspace, corpus, "64-jpeg")
    rows = read_shard_rows(workspace, corpus.split("test")[0])
    with pytest.raises(WorkspaceError, match=r"is missing: make the thumbnails .*split test\)"):
        read_thumbnail_rows(workspace, NAME, rows)
    workspace.write_json("thumbnails/6-raw/thumbnails.json", {"size": 6})
    with pytest.raises(WorkspaceError, match=r"thumbnails\.json has no format"):
        Thumbnails.read(workspace, corpus, NAME)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_original_is_named_and_nothing_is_published(workspace: Workspace, workers: int) -> None:
    shard = CorpusMetadata.read(workspace).split("train")[1]
    rows = read_shard_rows(workspace, shard)
    tar = Path(workspace.path(shard.tar))
    content = bytearray(tar.read_bytes())
    content[rows.offsets[2] + 60] ^= 0xFF
    tar.write_bytes(content)
    with pytest.raises(ShardError, match=f"row 2, key '{rows.keys[2]}': corrupt: .* restore it"):
        make(workspace, workers=workers)
    assert not workspace.exists("thumbnails/6-raw/thumbnails.json")
    assert not workspace.exists(thumbnail_index(NAME, shard.name))
    assert not list(Path(workspace.path("thumbnails")).rglob("*.tmp"))


def test_an_original_that_is_no_image_is_named(workspace: Workspace) -> None:
    shard = CorpusMetadata.read(workspace).split("train")[0]
    table = workspace.read_table(shard.index)
    rows = read_shard_rows(workspace, shard)
    tar = Path(workspace.path(shard.tar))
    content = bytearray(tar.read_bytes())
    content[rows.offsets[1] : rows.offsets[1] + 4] = b"text"
    tar.write_bytes(content)
    damaged = bytes(content[rows.offsets[1] : rows.offsets[1] + rows.sizes[1]])
    hashes = [*rows.hashes.to_pylist()]
    hashes[1] = hashlib.sha256(damaged).hexdigest()[:32]
    at = table.column_names.index("content_hash")
    workspace.write_table(shard.index, table.set_column(at, table.schema.field(at), pa.array(hashes)))
    with pytest.raises(ShardError, match=r"row 1, key 's1': not_an_image"):
        make(workspace)


def test_a_truncated_shard_is_an_error(workspace: Workspace) -> None:
    tar = Path(workspace.path("shards/train-000000.tar"))
    tar.write_bytes(tar.read_bytes()[:1000])
    with pytest.raises(ShardError, match="truncated"):
        make(workspace)


def test_a_second_writer_of_the_same_thumbnails_is_refused(workspace: Workspace) -> None:
    with exclusive_lock(workspace, "rho thumbnails", "thumbnails/6-raw"):
        with pytest.raises(WorkspaceError, match="another `rho thumbnails` is writing"):
            make(workspace)
        assert make(workspace, size=4).shards_made == 3  # another size is no matter


def test_settings_that_cannot_be_are_refused() -> None:
    for settings in ({"size": 0}, {"format": "png"}, {"workers": -1}):
        with pytest.raises(ConfigError, match="thumbnails"):
            ThumbnailsConfig(**settings)  # type: ignore[arg-type]


def test_a_remote_workspace_gets_its_thumbnails(tmp_path: Path) -> None:
    local = write_workspace(tmp_path / "w", (5, 3))
    remote = write_workspace("memory://thumbnails-test", (5, 3))  # type: ignore[arg-type]
    try:
        make(local)
        assert make(remote).shards_made == 2
        assert make(remote).shards_made == 0
        for name in files(local):
            assert remote.read_bytes(f"thumbnails/{name}") == local.read_bytes(f"thumbnails/{name}")
    finally:
        remote.remove("")


@pytest.mark.slow
def test_tars_that_lie_outside_the_workspace_are_left_there(tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path / "w", (5, 3))
    make(workspace)
    expected = files(workspace)
    shards = workspace.read_json("corpus.json")["shards"]
    (tmp_path / "elsewhere").mkdir()
    for shard in shards:
        source = tmp_path / "elsewhere" / f"{shard['name']}.tar"
        Path(workspace.path(f"shards/{shard['name']}.tar")).rename(source)
        shard["source"] = str(source)
    rewrite_metadata(workspace, shards=shards)
    workspace.remove("thumbnails")
    assert make(workspace, workers=1).shards_made == 2
    assert files(workspace) == expected


def test_rho_shards_makes_the_thumbnails_of_manifest_or_flag(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    manifest = tmp_path / "tiny.toml"
    manifest.write_text('format = "table"\nroot = "corpus"\nshard_size = 16\nholdout = 0.3\nthumbnails = 12\n')
    assert tomllib.loads(manifest.read_text())["thumbnails"] == 12
    command = ["shards", "--manifest", str(manifest), "--workspace", str(tmp_path / "w"), "--workers", "0"]
    dry = CliRunner().invoke(rho, [*command, "--dry-run"], catch_exceptions=False)
    assert (dry.exit_code, (tmp_path / "w").exists()) == (0, False)
    result = CliRunner().invoke(rho, [*command, "--json"], catch_exceptions=False)
    summary = json.loads(result.stdout)
    assert summary["thumbnails"]["name"] == "12-jpeg"
    assert summary["thumbnails"]["rows"] == summary["samples"]["train"]
    said = CliRunner().invoke(rho, [*command, "--thumbnails", "10", "--thumbnail-format", "raw"]).stdout
    assert "thumbnails 10-raw of train" in said
    assert "% of the originals'" in said
    assert CorpusMetadata.read(Workspace(tmp_path / "w")).manifest["thumbnails"] == 10
    environment = {"RHO_WORKSPACE": str(tmp_path / "w"), "RHO_THUMBNAILS_FORMAT": "jpeg"}
    made = CliRunner().invoke(rho, ["thumbnails", "--json", "--workers", "0"], env=environment, catch_exceptions=False)
    assert json.loads(made.stdout)["name"] == "10-jpeg"  # its size is the corpus's
    none = CliRunner().invoke(rho, [*command, "--json", "--thumbnails", "0"], catch_exceptions=False)
    assert "thumbnails" not in json.loads(none.stdout)
