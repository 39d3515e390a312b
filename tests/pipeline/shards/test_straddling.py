"""Equal images, and equal captions of few pairs, stand on one side of the split, whatever else they share."""

import hashlib
from collections import defaultdict
from pathlib import Path

import pytest
from helpers import jobs, killable
from helpers.pair_corpus import pair, pairs_manifest, tangled_pairs, write_tar_of

from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.in_place import index_tars
from rhostream.pipeline.shards import write_shards


def manifest_of(root, **settings):
    return pairs_manifest(root, **({"shard_size": 50, "holdout": 0.3, "options": {"extra": {}}} | settings))


def rows_of(workspace):
    corpus = CorpusMetadata.read(workspace)
    return [row for shard in corpus.shards for row in workspace.read_table(shard.index).to_pylist()]


def sides(workspace, column):
    """Of each value the splits that it is in."""
    found = defaultdict(set)
    for row in rows_of(workspace):
        found[row[column]].add(row["split"])
    return found


def none_straddles(workspace):
    return all(len(each) == 1 for column in ("content_hash", "text_hash") for each in sides(workspace, column).values())


def digests(workspace):
    folders = [workspace.path(name) for name in ("index", "rejects", "corpus.json")]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for folder in folders for path in files_of(folder)}


def files_of(folder):
    return [path for path in [Path(folder), *sorted(Path(folder).rglob("*"))] if path.is_file()]


@pytest.mark.parametrize("in_place", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_equal_images_and_equal_captions_stand_on_one_side(tmp_path, in_place):
    workspace = Workspace(tmp_path / "workspace")
    tars = [write_tar_of(tmp_path / "tars" / f"{part}.tar", tangled_pairs(200, part)) for part in range(3)]
    if in_place:
        summary = index_tars(workspace, [str(tar) for tar in tars], manifest_of(""), workers=0)
    else:
        summary = write_shards(workspace, manifest_of(tmp_path / "tars"), workers=0)
    assert none_straddles(workspace)
    assert {*summary.rejects} == {"straddling"}
    assert summary.entries == sum(summary.samples.values()) + summary.rejects["straddling"] == 600
    assert summary.samples["holdout"] > 60
    assert summary.rejects["straddling"] < 150
    before = digests(workspace)
    if in_place:
        index_tars(workspace, [str(tar) for tar in tars], manifest_of(""), workers=0)
    else:
        write_shards(workspace, manifest_of(tmp_path / "tars"), workers=0)
    assert digests(workspace) == before


def test_an_image_under_captions_of_its_own_loses_none(tmp_path):
    samples = [
        (f"{image:03d}-{told}", pair(image)[0], f"{told} words on {image}") for image in range(80) for told in range(5)
    ]
    summary = write_shards(tmp_path, samples=samples, task="pairs", holdout=0.3, workers=0)
    assert summary.rejects == {}
    assert none_straddles(Workspace(tmp_path))
    assert {*summary.samples} == {"train", "holdout"}


def test_boilerplate_is_split_by_its_images(tmp_path):
    samples = [(f"{number:03d}", pair(number)[0], "click to enlarge" if number < 120 else f"caption {number}")
               for number in range(200)]  # fmt: skip
    summary = write_shards(tmp_path, samples=samples, task="pairs", holdout=0.3, workers=0)
    assert (summary.common_captions, summary.rejects) == (120, {})
    found = sides(Workspace(tmp_path), "text")
    assert found["click to enlarge"] == {"train", "holdout"}
    assert CorpusMetadata.read(Workspace(tmp_path)).counts["common_captions"] == 120


@pytest.mark.slow
def test_what_is_appended_gives_way_to_what_was_there(tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    write_tar_of(tmp_path / "tars" / "0.tar", tangled_pairs(200, 0))
    write_shards(workspace, manifest_of(tmp_path / "tars"), workers=0)
    before = {row["key"]: row for row in rows_of(workspace)}
    write_tar_of(tmp_path / "tars" / "1.tar", tangled_pairs(200, 1))
    summary = write_shards(workspace, manifest_of(tmp_path / "tars"), workers=0, append=True)
    after = {row["key"]: row for row in rows_of(workspace)}
    assert (summary.added, summary.changed, summary.removed) == (200, 0, 0)
    assert none_straddles(workspace)
    assert len(after) > len(before) + 100
    assert all(after[key] == row for key, row in before.items())


@pytest.mark.slow
def test_appending_keeps_what_was_there_though_entries_are_gone(tmp_path):
    """Some are of an official holdout, which nothing that is left of the corpus tells of those that are gone."""
    workspace, tars = Workspace(tmp_path / "workspace"), tmp_path / "tars"
    settings = {"shard_size": 10, "options": {"extra": {}, "splits": {"clean-*": "holdout"}}}
    samples = {name: tangled_pairs(60, seed) for seed, name in enumerate(("a", "clean-0"))}
    for name, some in samples.items():
        write_tar_of(tars / f"{name}.tar", some)
    write_shards(workspace, manifest_of(tars, **settings), workers=0)
    before, found = digests(workspace), {row["key"]: row for row in rows_of(workspace)}
    for name, some in samples.items():
        write_tar_of(tars / f"{name}.tar", some[25:])
    write_tar_of(tars / "b.tar", tangled_pairs(40, 2))
    summary = write_shards(workspace, manifest_of(tars, **settings), workers=0, append=True)
    assert (summary.added, summary.removed) == (40, 50)
    after = digests(workspace)
    assert all(after[path] == digest for path, digest in before.items() if path.name != "corpus.json")
    assert {row["key"]: row for row in rows_of(workspace)}.items() >= found.items()


@pytest.mark.slow
def test_static_jobs_that_end_together_leave_what_one_process_does(tmp_path):
    write_tar_of(tmp_path / "tars/0.tar", tangled_pairs(240, 0))
    manifest = tmp_path / "pairs.toml"
    root = tmp_path / "tars"
    manifest.write_text(
        f'format = "webdataset"\ntask = "pairs"\nroot = "{root}"\nshard_size = 20\nholdout = 0.3\n[image]\nsize = 16\n'
    )
    command = ["shards", "--manifest", str(manifest), "--workers", "0", "--workspace"]
    killable.finish([*command, str(tmp_path / "one")])
    processes = jobs.start([*command, str(tmp_path / "several"), "--engine", "static"], ranks=3)
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 3
    of_one, of_several = (digests(Workspace(tmp_path / name)) for name in ("one", "several"))
    assert [*of_several.values()] == [*of_one.values()]


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["index", "rejects", "shards"])
def test_a_lost_unit_is_made_again_as_it_was(tmp_path, lost):
    workspace = Workspace(tmp_path / "workspace")
    write_tar_of(tmp_path / "tars" / "0.tar", tangled_pairs(150, 0))
    write_shards(workspace, manifest_of(tmp_path / "tars"), workers=0)
    if lost == "shards":  # of what is appended to, the indexes must be whole
        write_tar_of(tmp_path / "tars" / "1.tar", tangled_pairs(80, 1))
        write_shards(workspace, manifest_of(tmp_path / "tars"), workers=0, append=True)
    before = digests(workspace)
    for file in files_of(workspace.path(lost))[:2]:
        file.unlink()
        write_shards(workspace, manifest_of(tmp_path / "tars"), workers=0)
        assert digests(workspace) == before


@pytest.mark.slow
def test_several_processes_refuse_the_same(tmp_path):
    write_tar_of(tmp_path / "tars" / "0.tar", tangled_pairs(300, 0))
    found = []
    for workers in (0, 2):
        workspace = Workspace(tmp_path / str(workers))
        write_shards(workspace, manifest_of(tmp_path / "tars"), workers=workers)
        found.append([(path.name, path.read_bytes()) for path in sorted(files_of(workspace.path("index")))])
    assert found[0] == found[1]


@pytest.mark.parametrize("in_place", [False, True])
def test_pairs_of_an_official_holdout_stay(tmp_path, in_place):
    tars = [
        write_tar_of(tmp_path / "tars" / f"{name}.tar", tangled_pairs(100, seed))
        for seed, name in enumerate(("a", "clean"))
    ]
    manifest = manifest_of(
        "" if in_place else tmp_path / "tars", options={"extra": {}, "splits": {"clean.tar": "holdout"}}
    )
    workspace = Workspace(tmp_path / "workspace")
    if in_place:
        index_tars(workspace, [str(tar) for tar in tars], manifest, workers=0)
    else:
        write_shards(workspace, manifest, workers=0)
    split_of = {row["key"]: row["split"] for row in rows_of(workspace)}
    assert all(split_of[key] == "holdout" for key, _, _ in tangled_pairs(100, 1))
