"""`rho shards` again: a unit is made anew where a file is missing, and other settings are refused."""

import fcntl
import os
import shutil
from pathlib import Path

import pytest
from helpers.shards_corpus import contents, manifest_of, write_corpus
from helpers.support import put

from rhostream.errors import WorkspaceError
from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.manifest import Noise
from rhostream.pipeline.shards.write import write_shards


@pytest.mark.parametrize("damage", ["remove", "cut"])
def test_a_missing_or_cut_file_is_remade_byte_for_byte(corpus: Path, workspace: Path, damage: str) -> None:
    whole = contents(workspace)
    names = [f"index/train-{1:06d}.parquet", "shards/holdout-000000.tar", "rejects/000002.parquet", "corpus.json"]
    for name in names:
        if damage == "remove":
            (workspace / name).unlink()
        else:
            os.truncate(workspace / name, (workspace / name).stat().st_size // 2)
        summary = write_shards(str(workspace), manifest_of(corpus), workers=0)
        assert summary.units_made == (0 if name == "corpus.json" else 1)
        assert contents(workspace) == whole, name


def test_a_finished_workspace_is_left_as_it_is(corpus: Path, workspace: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in workspace.rglob("*.*") if path.name != "corpus.json"}
    again = write_shards(str(workspace), manifest_of(corpus), workers=2)
    assert (again.units_made, again.entries) == (0, 60)
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_workspace_may_be_moved(corpus: Path, workspace: Path, tmp_path: Path) -> None:
    moved = workspace.rename(tmp_path / "elsewhere")
    assert write_shards(str(moved), manifest_of(corpus), workers=0).units_made == 0
    assert str(workspace) not in "".join(path.read_bytes().decode("latin-1") for path in moved.rglob("*.*"))


def test_another_manifest_or_corpus_is_refused_and_says_what_differs(
    corpus: Path, workspace: Path, tmp_path: Path
) -> None:
    whole = contents(workspace)
    for settings, said in (
        ({"holdout": 0.2}, "holdout 0.3, asked for 0.2"),
        ({"folds": 2}, "folds 0, asked for 2"),
        ({"seed": 9}, "seed 0, asked for 9"),
        ({"max_side": 10}, "max_side 0, asked for 10"),
        ({"classes": ("cat", "dog", "bird", "cow")}, "'cow'"),
        ({"noise": Noise(rate=0.9)}, "clean_label"),
    ):
        with pytest.raises(WorkspaceError) as caught:
            write_shards(str(workspace), manifest_of(corpus, **settings), workers=0)
        assert said in str(caught.value)
        assert "--overwrite" in str(caught.value)
    grown = write_corpus(tmp_path / "grown", images=61)
    with pytest.raises(WorkspaceError, match="listed 60 entries, this one lists 61"):
        write_shards(str(workspace), manifest_of(grown), workers=0)
    (workspace / "corpus.json").unlink()  # a run that was killed half-way
    with pytest.raises(WorkspaceError, match=r"holdout 0\.3, asked for 0\.2"):
        write_shards(str(workspace), manifest_of(corpus, holdout=0.2), workers=0)
    assert whole.items() > contents(workspace).items()


def test_defaults_of_later_stages_may_change_without_new_shards(corpus: Path, workspace: Path) -> None:
    assert write_shards(str(workspace), manifest_of(corpus, train={"steps": 5}), workers=0).units_made == 0
    assert CorpusMetadata.read(Workspace(workspace)).manifest["train"] == {"steps": 5}


def test_overwrite_remakes_the_shards_and_leaves_models_and_runs(corpus: Path, workspace: Path, tmp_path: Path) -> None:
    put(workspace / "il/strided_cnn/model.json", "{}")
    write_shards(str(workspace), manifest_of(corpus, folds=2), workers=0, overwrite=True)
    write_shards(str(tmp_path / "fresh"), manifest_of(corpus, folds=2), workers=0)
    assert contents(workspace) == contents(tmp_path / "fresh") | {
        "il/strided_cnn/model.json": contents(workspace)["il/strided_cnn/model.json"]
    }


def test_what_a_killed_run_of_other_settings_left_is_removed(corpus: Path, workspace: Path) -> None:
    whole = contents(workspace)
    shutil.copy(workspace / "shards/train-000000.tar", workspace / "shards/train-fold0-000000.tar")
    put(workspace / "shards/train-fold1-000000.tar.tmp", "x")
    put(workspace / "index/train-fold0-000000.parquet", "x")
    write_shards(str(workspace), manifest_of(corpus), workers=0)
    assert contents(workspace) == whole


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_one_line_the_next_run_continues(
    corpus: Path, finished: Path, tmp_path: Path, workers: int
) -> None:
    (tmp_path / "w/shards").mkdir(parents=True)
    (tmp_path / "w/shards/train-000003.tar.tmp").symlink_to("/dev/full")
    with pytest.raises(WorkspaceError, match="No space left on device") as caught:
        write_shards(str(tmp_path / "w"), manifest_of(corpus), workers=workers)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "w").rglob("*.tmp"))
    write_shards(str(tmp_path / "w"), manifest_of(corpus), workers=0)
    assert contents(tmp_path / "w") == contents(finished)


def test_a_second_run_at_the_same_time_is_refused(corpus: Path, workspace: Path) -> None:
    descriptor = os.open(workspace, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(WorkspaceError, match="another `rho shards` is writing"):
            write_shards(str(workspace), manifest_of(corpus), workers=0)
    finally:
        os.close(descriptor)
    assert write_shards(str(workspace), manifest_of(corpus), workers=0).units_made == 0
