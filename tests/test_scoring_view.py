"""`rho view`: renditions beside every shard, made once, of the shard as it is, and refused where they are not."""

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
from shards_corpus import contents, write_corpus
from tiny import rewrite_shard, write_workspace

from rhostream.cli.main import rho
from rhostream.errors import ConfigError, ShardError, WorkspaceError
from rhostream.loaders.decode import content_hash, decode_rgb
from rhostream.loaders.index import SHARD_DIGEST_KEY, CorpusCard, read_shard_rows
from rhostream.loaders.scoring_view import (
    RENDITION_KEY,
    RENDITIONS,
    ScoringView,
    read_rendition_rows,
    rendition_index,
    rendition_tar,
)
from rhostream.loaders.shard_reader import ShardReader
from rhostream.loaders.workspace import Workspace
from rhostream.pipeline.lock import only_writer
from rhostream.pipeline.scoring_view import ScoringViewConfig, ScoringViewSummary, write_scoring_view

NAME = "6-raw"


def make(workspace: Workspace, **settings: Any) -> ScoringViewSummary:
    return write_scoring_view(workspace, ScoringViewConfig(**{"size": 6, "format": "raw", "workers": 0} | settings))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Train shards of 5, 4 and 3 samples and a test shard of 2, images of 8x8 pixels."""
    return write_workspace(tmp_path / "w", (5, 4, 3), test_rows=2)


def views(workspace: Workspace) -> dict[str, str]:
    return contents(Path(workspace.path("views")))


def rewrite_card(workspace: Workspace, **values: Any) -> CorpusCard:
    workspace.write_json("corpus.json", workspace.read_json("corpus.json") | values)
    return CorpusCard.read(workspace)


@pytest.mark.parametrize(("rendition_format", "ext"), [("jpeg", "jpg"), ("raw", "ppm")])
def test_every_sample_has_its_rendition_in_the_order_of_the_shard(
    workspace: Workspace, rendition_format: str, ext: str
) -> None:
    summary = make(workspace, format=rendition_format)
    card, reader = CorpusCard.read(workspace), ShardReader(workspace)
    view = ScoringView.read(workspace, card, summary.name)
    assert (view.name, view.splits, view.rows) == (f"6-{rendition_format}", ("train",), 12)
    stored = 0
    for shard in card.split("train"):
        rows = read_shard_rows(workspace, shard)
        renditions = read_rendition_rows(workspace, view.name, rows)
        with tarfile.open(workspace.path(renditions.tar)) as tar:
            members = tar.getmembers()
        assert [member.name for member in members] == [f"{key}.{ext}" for key in rows.keys.to_pylist()]
        assert [member.offset_data for member in members] == renditions.offsets.tolist()
        assert {(member.mtime, member.uid, member.uname, member.mode) for member in members} == {(0, 0, "", 0o644)}
        for row, digest in enumerate(renditions.hashes.to_pylist()):
            data = reader.read(renditions.tar, int(renditions.offsets[row]), int(renditions.sizes[row]))
            assert content_hash(data) == digest
            pixels = np.asarray(decode_rgb(data))
            assert pixels.shape == (6, 6, 3)
            number, label = int(rows.keys[row].as_py()[1:]), int(rows.labels[row])
            assert abs(float(pixels.mean()) - (80 * label + 29)) < 12, number  # the class is its brightness
        stored += Path(workspace.path(renditions.tar)).stat().st_size
    assert (view.bytes, summary.bytes) == (stored, stored)
    originals = sum(int(read_shard_rows(workspace, shard).sizes.sum()) for shard in card.split("train"))
    assert summary.original_bytes == originals


def test_the_files_are_flat_parquet_with_the_promised_columns(workspace: Workspace) -> None:
    make(workspace)
    table = workspace.read_table(rendition_index(NAME, "train-000000"))
    assert table.schema.equals(RENDITIONS)
    assert table.schema.metadata[SHARD_DIGEST_KEY] == b"train-000000"
    assert json.loads(table.schema.metadata[RENDITION_KEY])["size"] == 6


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_writes_the_same_bytes(workspace: Workspace, tmp_path: Path, workers: int) -> None:
    make(workspace)
    other = write_workspace(tmp_path / "other", (5, 4, 3), test_rows=2)
    make(other, workers=workers)
    assert views(other) == views(workspace)


def test_what_is_made_is_not_made_again_and_what_is_missing_is(workspace: Workspace) -> None:
    assert make(workspace).shards_made == 3
    expected = views(workspace)
    assert make(workspace).shards_made == 0
    workspace.remove(rendition_index(NAME, "train-000001"))
    workspace.remove(rendition_tar(NAME, "train-000002"))
    assert make(workspace).shards_made == 2
    tar = Path(workspace.path(rendition_tar(NAME, "train-000000")))
    tar.write_bytes(tar.read_bytes()[:-512])
    assert make(workspace).shards_made == 1
    workspace.write_bytes(rendition_index(NAME, "train-000000"), b"half a Parquet")
    assert make(workspace).shards_made == 1
    assert make(workspace, overwrite=True).shards_made == 3
    assert views(workspace) == expected


def test_a_part_of_other_settings_is_made_anew(workspace: Workspace) -> None:
    make(workspace)
    expected = views(workspace)
    name = rendition_index(NAME, "train-000001")
    table = workspace.read_table(name)
    settings = json.loads(table.schema.metadata[RENDITION_KEY]) | {"quality": 50}
    metadata = {**table.schema.metadata, RENDITION_KEY: json.dumps(settings).encode()}
    workspace.write_table(name, table.replace_schema_metadata(metadata))
    assert make(workspace).shards_made == 1
    assert views(workspace) == expected


def test_several_views_stand_side_by_side(workspace: Workspace) -> None:
    make(workspace)
    expected = views(workspace)
    assert make(workspace, size=4, format="jpeg").shards_made == 3
    assert views(workspace).items() > expected.items()
    assert workspace.names("views") == ["4-jpeg", NAME]


def test_a_split_is_added_without_touching_the_others(workspace: Workspace) -> None:
    make(workspace)
    summary = make(workspace, splits=("test",))
    assert (summary.splits, summary.rows, summary.shards_made) == (("test", "train"), 14, 1)
    assert make(workspace).splits == ("test", "train")
    with pytest.raises(WorkspaceError, match=r"no split 'tset'; there is test, train"):
        make(workspace, splits=("tset",))


def test_after_new_shards_the_view_is_refused_until_it_is_made_again(workspace: Workspace) -> None:
    make(workspace)
    rewrite_shard(workspace, "train-000001", "other labels")
    shards = workspace.read_json("corpus.json")["shards"][1:]
    card = rewrite_card(workspace, shards=shards, fingerprint="other")
    with pytest.raises(WorkspaceError, match="of another split of the corpus than the shards are now: run `rho view`"):
        ScoringView.read(workspace, card, NAME)
    rows = read_shard_rows(workspace, card.split("train")[0])
    with pytest.raises(WorkspaceError, match=r"describes other samples .* --size 6 --format raw --split train"):
        read_rendition_rows(workspace, NAME, rows)
    assert make(workspace).shards_made == 1
    assert ScoringView.read(workspace, card, NAME).fingerprint == "other"
    assert len(read_rendition_rows(workspace, NAME, rows).sizes) == len(rows)
    assert not workspace.exists(rendition_tar(NAME, "train-000000"))
    assert not workspace.exists(rendition_index(NAME, "train-000000"))


def test_a_view_that_is_not_there_or_not_finished_is_told_with_the_command(workspace: Workspace) -> None:
    card = CorpusCard.read(workspace)
    with pytest.raises(WorkspaceError, match=r"has no views/6-raw/view.json \(views there: none\); run `rho view"):
        ScoringView.read(workspace, card, NAME)
    make(workspace)
    with pytest.raises(WorkspaceError, match=r"\(views there: 6-raw\)"):
        ScoringView.read(workspace, card, "64-jpeg")
    rows = read_shard_rows(workspace, card.split("test")[0])
    with pytest.raises(WorkspaceError, match=r"is missing: run `rho view .* --split test`"):
        read_rendition_rows(workspace, NAME, rows)
    workspace.write_json("views/6-raw/view.json", {"size": 6})
    with pytest.raises(WorkspaceError, match="no card of a scoring view"):
        ScoringView.read(workspace, card, NAME)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_original_is_named_and_nothing_is_published(workspace: Workspace, workers: int) -> None:
    shard = CorpusCard.read(workspace).split("train")[1]
    rows = read_shard_rows(workspace, shard)
    tar = Path(workspace.path(shard.tar))
    content = bytearray(tar.read_bytes())
    content[rows.offsets[2] + 60] ^= 0xFF
    tar.write_bytes(content)
    with pytest.raises(ShardError, match=f"row 2, key '{rows.keys[2]}': corrupt: .* restore it"):
        make(workspace, workers=workers)
    assert not workspace.exists("views/6-raw/view.json")
    assert not workspace.exists(rendition_index(NAME, shard.name))
    assert not list(Path(workspace.path("views")).rglob("*.tmp"))


def test_an_original_that_is_no_image_is_named(workspace: Workspace) -> None:
    shard = CorpusCard.read(workspace).split("train")[0]
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


def test_a_second_writer_of_the_same_view_is_refused(workspace: Workspace) -> None:
    with only_writer(workspace, "rho view", "views/6-raw"):
        with pytest.raises(WorkspaceError, match="another `rho view` is writing"):
            make(workspace)
        assert make(workspace, size=4).shards_made == 3  # another view is no matter


def test_settings_that_cannot_be_are_refused() -> None:
    for settings in ({"size": 0}, {"format": "png"}, {"workers": -1}):
        with pytest.raises(ConfigError, match="scoring view"):
            ScoringViewConfig(**settings)  # type: ignore[arg-type]


def test_a_remote_workspace_gets_its_view(tmp_path: Path) -> None:
    local = write_workspace(tmp_path / "w", (5, 3))
    remote = write_workspace("memory://scoring-view-test", (5, 3))  # type: ignore[arg-type]
    try:
        make(local)
        assert make(remote).shards_made == 2
        assert make(remote).shards_made == 0
        for name in views(local):
            assert remote.read_bytes(f"views/{name}") == local.read_bytes(f"views/{name}")
    finally:
        remote.remove("")


def test_tars_that_lie_outside_the_workspace_are_left_there(tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path / "w", (5, 3))
    make(workspace)
    expected = views(workspace)
    shards = workspace.read_json("corpus.json")["shards"]
    (tmp_path / "elsewhere").mkdir()
    for shard in shards:
        source = tmp_path / "elsewhere" / f"{shard['name']}.tar"
        Path(workspace.path(f"shards/{shard['name']}.tar")).rename(source)
        shard["source"] = str(source)
    rewrite_card(workspace, shards=shards)
    workspace.remove("views")
    assert make(workspace, workers=1).shards_made == 2
    assert views(workspace) == expected


def test_rho_shards_makes_the_view_that_the_manifest_or_the_flag_asks_for(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    manifest = tmp_path / "tiny.toml"
    manifest.write_text('format = "table"\nroot = "corpus"\nshard_size = 16\nholdout = 0.3\nscoring_view = 12\n')
    assert tomllib.loads(manifest.read_text())["scoring_view"] == 12
    command = ["shards", "--manifest", str(manifest), "--workspace", str(tmp_path / "w"), "--workers", "0"]
    dry = CliRunner().invoke(rho, [*command, "--dry-run"], catch_exceptions=False)
    assert (dry.exit_code, (tmp_path / "w").exists()) == (0, False)
    result = CliRunner().invoke(rho, [*command, "--json"], catch_exceptions=False)
    summary = json.loads(result.stdout)
    assert summary["scoring_view"]["name"] == "12-jpeg"
    assert summary["scoring_view"]["rows"] == summary["samples"]["train"]
    said = CliRunner().invoke(rho, [*command, "--scoring-view", "10", "--scoring-format", "raw"]).stdout
    assert "scoring view 10-raw of train" in said
    assert "% of the originals'" in said
    assert CorpusCard.read(Workspace(tmp_path / "w")).manifest["scoring_view"] == 10
    environment = {"RHO_WORKSPACE": str(tmp_path / "w"), "RHO_VIEW_FORMAT": "jpeg"}
    made = CliRunner().invoke(rho, ["view", "--json", "--workers", "0"], env=environment, catch_exceptions=False)
    assert json.loads(made.stdout)["name"] == "10-jpeg"  # its size is the corpus's
    none = CliRunner().invoke(rho, [*command, "--json", "--scoring-view", "0"], catch_exceptions=False)
    assert "scoring_view" not in json.loads(none.stdout)
