"""`rho index`: foreign tars indexed where they lie, hand-made ones and real ones of img2dataset."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from helpers.foreign_tars import assert_rows_point_into_tars, index, manifest, sample, tar
from helpers.shards_corpus import contents, rejects, samples
from helpers.support import SHARED, jpeg, needs_shared, png, put

from rhostream.cli.main import rho
from rhostream.errors import ConfigError, CorpusError, WorkspaceError
from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.loaders.index.keys import webdataset_key
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.manifest import Noise
from rhostream.pipeline.shards.write import write_shards


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Three tars of 20 samples, labels 0 to 2, keys unique."""
    for number in range(3):
        members = [m for n in range(20) for m in sample(f"{number}{n:05d}", str(n % 3), 100 * number + n)]
        tar(tmp_path / "tars" / f"{number:03d}.tar", *members)
    return tmp_path / "tars"


def test_every_sample_is_a_row_that_points_into_its_tar(tars: Path, tmp_path: Path) -> None:
    before = contents(tars)
    summary = index(tmp_path / "w", tars)
    assert (summary.entries, sum(summary.samples.values()), summary.rejects, summary.units) == (60, 60, {}, 3)
    corpus = CorpusMetadata.read(Workspace(tmp_path / "w"))
    assert corpus.classes == ("0", "1", "2")
    assert {shard.source for shard in corpus.shards} == {str(tars / f"{n:03d}.tar") for n in range(3)}
    assert {shard.name for shard in corpus.shards} == {f"{s}-{n:06d}" for s in ("train", "holdout") for n in range(3)}
    assert_rows_point_into_tars(tmp_path / "w")
    found = {str(row["key"]): row for row in samples(tmp_path / "w")}
    assert sorted(found) == [f"{number}{n:05d}" for number in range(3) for n in range(20)]
    assert (found["100004"]["label"], found["100004"]["width"], found["100004"]["height"]) == (1, 24, 16)
    assert found["100004"]["source"] == f"{tars}/001.tar/100004"
    assert contents(tars) == before
    assert not (tmp_path / "w" / "shards").exists()


@pytest.mark.parametrize("settings", [{}, {"folds": 3, "holdout": 0.0}], ids=["holdout", "folds"])
def test_split_and_fold_equal_those_of_rho_shards(tars: Path, tmp_path: Path, settings: dict[str, object]) -> None:
    index(tmp_path / "indexed", tars, seed=7, **settings)
    write_shards(str(tmp_path / "copied"), manifest(root=str(tars), seed=7, **settings), workers=0)
    sides = [
        {str(row["key"]): (row["split"], row["fold"], row["label"], row["content_hash"]) for row in samples(place)}
        for place in (tmp_path / "indexed", tmp_path / "copied")
    ]
    assert sides[0] == sides[1]
    assert len({side[:2] for side in sides[0].values()}) == (3 if settings else 2)


@pytest.mark.slow
def test_two_runs_give_identical_bytes_with_any_number_of_workers(tars: Path, tmp_path: Path) -> None:
    index(tmp_path / "a", tars)
    index(tmp_path / "b", f"{tars}/*.tar", f"{tars}/00{{2,1,0}}.tar", workers=2)
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert a.pop("corpus.json") != b.pop("corpus.json")  # the root, as it was typed
    assert a == b
    written = contents(tmp_path / "a")
    assert index(tmp_path / "a", tars, options={"label": "cls"}).units_made == 0  # the default, said aloud
    assert contents(tmp_path / "a") == written


def test_more_tars_are_added_and_move_no_sample(tars: Path, tmp_path: Path) -> None:
    index(tmp_path / "w", tars / "000.tar", tars / "002.tar")
    before = {row["key"]: (row["split"], row["content_hash"]) for row in samples(tmp_path / "w")}
    assert index(tmp_path / "w", tars).units_made == 1
    after = {row["key"]: (row["split"], row["content_hash"]) for row in samples(tmp_path / "w")}
    assert len(after) == 60
    assert before.items() <= after.items()
    index(tmp_path / "new", tars)
    assert contents(tmp_path / "w") == contents(tmp_path / "new")
    with pytest.raises(WorkspaceError, match=r"holds an index of 1 tars that are not named now, .*001\.tar: name all"):
        index(tmp_path / "w", tars / "000.tar", tars / "002.tar")


def test_a_tar_that_has_changed_is_read_again(tars: Path, tmp_path: Path) -> None:
    index(tmp_path / "w", tars)
    tar(tars / "001.tar", *sample("new", "2", 999))
    summary = index(tmp_path / "w", tars)
    assert (summary.units_made, summary.entries) == (1, 41)
    assert_rows_point_into_tars(tmp_path / "w")
    assert len(list((tmp_path / "w/scans").iterdir())) == 3


def test_another_corpus_is_refused_unless_overwrite_replaces_it(tars: Path, tmp_path: Path) -> None:
    index(tmp_path / "w", tars)
    with pytest.raises(WorkspaceError, match=r"index made with other settings \(holdout 0.3, asked for 0.5\)"):
        index(tmp_path / "w", tars, holdout=0.5)
    with pytest.raises(WorkspaceError, match=r"other settings \(classes"):
        index(tmp_path / "w", tars, classes=("2", "1", "0"))
    index(tmp_path / "w", tars, holdout=0.5, overwrite=True)
    index(tmp_path / "direct", tars, holdout=0.5)
    assert contents(tmp_path / "w") == contents(tmp_path / "direct")
    with pytest.raises(WorkspaceError, match="holds shards made with other settings"):
        write_shards(str(tmp_path / "w"), manifest(root=str(tars)), workers=0)
    write_shards(str(tmp_path / "copied"), manifest(root=str(tars)), workers=0)
    with pytest.raises(WorkspaceError, match="holds shards of its own"):
        index(tmp_path / "copied", tars)


def test_what_only_rho_shards_can_do_is_refused(tars: Path, tmp_path: Path) -> None:
    for wrong, message in (
        ({"format": "table"}, "only tars of format 'webdataset' are indexed"),
        ({"max_side": 64}, "sets max_side: tars that are indexed where they lie"),
        ({"noise": Noise()}, r"sets \[noise\]"),
        ({"options": {"label": "pyd"}}, r"choose cls, txt or json\.<field>"),
        ({"options": {"splits": {"*": "dev"}}}, r"'dev' is no split"),
    ):
        with pytest.raises(ConfigError, match=message):
            index(tmp_path / "w", tars, **wrong)


def test_official_splits_follow_the_names_of_the_tars(tars: Path, tmp_path: Path) -> None:
    index(tmp_path / "w", tars, options={"splits": {"001.tar": "val", "tars/*2.tar": "test"}})
    splits = {str(row["key"])[0]: row["split"] for row in samples(tmp_path / "w") if row["split"] in ("val", "test")}
    assert splits == {"1": "val", "2": "test"}
    names = {shard.name for shard in CorpusMetadata.read(Workspace(tmp_path / "w")).shards}
    assert names == {"train-000000", "holdout-000000", "val-000001", "test-000002"}


def test_illegal_keys_become_safe_from_their_name_alone(tmp_path: Path) -> None:
    names = ["./000", "n01440764/n01440764_10026", "a b", "plain_1-x", "n02/x.y/7"]
    members = [m for n, name in enumerate(names) for m in sample(name, str(n % 2), n)]
    tar(tmp_path / "a.tar", *members)
    index(tmp_path / "w", tmp_path / "a.tar", holdout=0.5)
    keys = {str(row["source"]).partition("a.tar/")[2]: str(row["key"]) for row in samples(tmp_path / "w")}
    assert keys["000"] == "000" == webdataset_key("./000")
    assert keys["plain_1-x"] == "plain_1-x"
    assert keys["n01440764/n01440764_10026"].startswith("n01440764-n01440764_10026-")
    assert keys == {name: webdataset_key(name) for name in keys}
    assert not any(set("./, ") & set(key) for key in keys.values())


def test_keys_clashing_between_tars_fail_until_they_name_tars(tmp_path: Path) -> None:
    for number in range(2):
        members = [m for n in range(10) for m in sample(f"{n:04d}", str(n % 2), 10 * number + n)]
        tar(tmp_path / f"t-{number}.tar", *members)
    with pytest.raises(
        CorpusError, match=r"10 keys stand in more than one tar, .*'0000' in .*t-0.tar and .*t-1.tar: .*--keys tar"
    ):
        index(tmp_path / "w", f"{tmp_path}/t-{{0,1}}.tar")
    summary = index(tmp_path / "w", f"{tmp_path}/t-{{0,1}}.tar", options={"keys": "tar"})
    assert (summary.entries, summary.units_made) == (20, 0)  # the tars were read before
    keys = {str(row["source"]): str(row["key"]) for row in samples(tmp_path / "w")}
    assert len(set(keys.values())) == 20
    assert keys[f"{tmp_path}/t-1.tar/0003"] == webdataset_key("0003", "s3://elsewhere/t-1.tar")
    assert keys[f"{tmp_path}/t-1.tar/0003"].startswith("t-1-0003-")


def test_labels_extra_columns_and_images_of_several_kinds(tmp_path: Path) -> None:
    tar(
        tmp_path / "a.tar",
        ("0.jpg", jpeg(0)),
        ("0.json", b'{"label": "cat", "name": "Tom", "size": 3}'),
        ("0.txt", "schön".encode()),
        ("1.png", png(1)),
        ("1.json", b'{"label": "dog", "name": "Rex"}'),
        ("1.pyd", b"never read"),
        ("2.seg.png", png(2)),
        ("2.jpg", png(3)),
        ("2.json", b'{"label": "dog"}'),
        *[m for n in range(3, 9) for m in ((f"{n}.jpg", jpeg(n)), (f"{n}.json", b'{"label": "cat"}'))],
    )
    options = {"label": "json.label", "extra": {"name": "string", "size": "int64", "txt": "string"}}
    index(tmp_path / "w", tmp_path / "a.tar", options=options, classes=("dog", "cat"))
    assert_rows_point_into_tars(tmp_path / "w")
    found = {row["key"]: row for row in samples(tmp_path / "w")}
    assert [found["0"][name] for name in ("label", "class", "name", "size_given", "txt")] == [
        1,
        "cat",
        "Tom",
        3,
        "schön",
    ]
    assert [found["1"][name] for name in ("label", "ext", "name", "txt")] == [0, "png", "Rex", None]
    assert found["2"]["ext"] == "png"  # of the real format


@needs_shared
def test_real_img2dataset_shards(tmp_path: Path) -> None:
    root = SHARED / "data" / "img2dataset"
    options = {"label": "json.label", "extra": {"caption": "string"}}
    summary = index(tmp_path / "w", root, options=options)
    assert (summary.entries, sum(summary.samples.values()), summary.rejects) == (240, 210, {"download_failed": 30})
    assert_rows_point_into_tars(tmp_path / "w")
    urls = {row["key"]: row for n in range(3) for row in pq.read_table(root / f"{n:05d}.parquet").to_pylist()}
    assert {row["key"] for row in [*samples(tmp_path / "w"), *rejects(tmp_path / "w")]} == urls.keys()
    assert all(row["caption"] == urls[str(row["key"])]["caption"] for row in samples(tmp_path / "w"))


@pytest.mark.slow
def test_the_command_takes_options_from_flags_and_a_manifest(tars: Path, tmp_path: Path) -> None:
    common = ["--holdout", "0.4", "--workspace", str(tmp_path / "flags"), "--workers", "0", "--json"]
    flags = ["index", str(tars), "--classes", "2,1,0", "--split", "002.tar=test", "--extra", "txt", *common]
    done = CliRunner().invoke(rho, flags)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["entries"] == 60
    assert said["samples"]["test"] == 20
    corpus = CorpusMetadata.read(Workspace(tmp_path / "flags"))
    assert corpus.classes == ("2", "1", "0")
    assert corpus.manifest["options"]["extra"] == {"txt": "string"}

    toml = put(
        tmp_path / "m.toml",
        'format = "webdataset"\nroot = "tars"\nholdout = 0.4\nclasses = ["2", "1", "0"]\n'
        '[options]\nextra = { txt = "string" }\nsplits = { "002.tar" = "test" }\n',
    )
    done = CliRunner().invoke(rho, ["index", "--manifest", str(toml), "--workspace", str(tmp_path / "toml")])
    assert done.exit_code == 0, done.output
    a, b = contents(tmp_path / "flags"), contents(tmp_path / "toml")
    assert a.pop("corpus.json") != b.pop("corpus.json")  # the name
    assert a == b
    for wrong, message in ((["index"], "no tar is named"), (["index", "x", "--split", "val"], "give GLOB=SPLIT")):
        done = CliRunner().invoke(rho, [*wrong, "--workspace", str(tmp_path / "none")])
        assert message in f"{done.output} {done.exception}"
