"""No command removes or writes over what it has not written: sources inside a workspace, and files of others in it."""

import os
import shutil
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner
from helpers.foreign_tars import index, manifest, sample, tar
from helpers.pair_corpus import pairs_manifest, write_pairs_tar
from helpers.shards_corpus import contents, manifest_of, write_corpus
from helpers.support import jpeg, put
from helpers.tagged import as_text, tagged_manifest, write_tagged
from helpers.tiny import write_workspace

from rhostream.cli.main import rho
from rhostream.errors import ConfigError, WorkspaceError
from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.shards.write import write_shards
from rhostream.pipeline.thumbnails.write import write_thumbnails

FOLDERS = ("shards", "index", "rejects", "scans", "views")


def write_tars(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names or ("00000.tar", "00001.tar")):
        members = [m for n in range(20) for m in sample(f"{number}-{n:03d}", str(n % 3), 100 * number + n)]
        tar(folder / name, *members)
    return folder


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("folder", FOLDERS)
def test_tars_inside_the_workspaces_folders_are_refused_before_any_write(
    tmp_path: Path, folder: str, overwrite: bool
) -> None:
    tars = write_tars(tmp_path / "cc" / folder)
    before = contents(tmp_path)
    message = rf"/cc/{folder}/00000\.tar \(2 such\) lies in .*/cc/{folder}, where .* name another --workspace, for"
    with pytest.raises(ConfigError, match=message) as error:
        index(tmp_path / "cc", tars, overwrite=overwrite)
    assert "\n" not in str(error.value)
    for root in (tars, tmp_path / "cc", f"{tars}/*.tar"):
        with pytest.raises(ConfigError, match=message):
            write_shards(str(tmp_path / "cc"), manifest(root=str(root)), workers=0, overwrite=overwrite)
    assert contents(tmp_path) == before


def test_symbolic_links_and_relative_names_hide_no_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tars = write_tars(tmp_path / "data")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/shards").symlink_to(tars)  # the workspace's folder is the tars' folder
    (tmp_path / "cc/scans").mkdir(parents=True)
    (tmp_path / "cc/scans/a.tar").symlink_to(tars / "00000.tar")  # a link that would be removed
    (tmp_path / "way").symlink_to(tmp_path / "cc")  # the workspace under another name
    monkeypatch.chdir(tmp_path / "data")
    before = contents(tmp_path)
    for workspace, source in (
        (tmp_path / "linked", tars),
        ("../linked", "."),
        (tmp_path / "cc", tmp_path / "cc/scans/a.tar"),
        (tmp_path / "cc", tmp_path / "way/scans"),
        ("../way", "../cc/index/../scans"),
    ):
        with pytest.raises(ConfigError, match="name another --workspace"):
            index(workspace, source, overwrite=True)
    assert contents(tmp_path) == before
    assert (tmp_path / "cc/scans/a.tar").is_symlink()


def test_urls_inside_a_remote_workspace_are_refused(tmp_path: Path) -> None:
    write_tars(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "00000.tar"), "/own-files/cc/shards/00000.tar")
    try:
        for workspace in ("memory://own-files/cc", "memory:///own-files/cc/"):
            with pytest.raises(ConfigError, match=r"own-files/cc/shards/00000\.tar \(1 such\) lies in memory://"):
                index(workspace, "memory://own-files/cc/shards/", overwrite=True)
        assert memory.find("/own-files") == ["/own-files/cc/shards/00000.tar"]
        index("memory://own-files/cc/rho", "memory://own-files/cc/shards/")
        index("memory://own-files/cc/rho", "memory://own-files/cc/shards/", overwrite=True)
        assert memory.exists("/own-files/cc/shards/00000.tar")
    finally:
        memory.rm("/own-files", recursive=True)


def test_a_root_inside_the_workspaces_folders_is_refused(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "w/index")
    before = contents(tmp_path)
    for root in (corpus, corpus / "labels.csv"):
        for dry_run in (True, False):
            with pytest.raises(ConfigError, match=r"lies in .*w/index, where"):
                write_shards(str(tmp_path / "w"), manifest_of(root), workers=0, overwrite=True, dry_run=dry_run)
    drawn = manifest_of(tmp_path / "w/thumbnails/drawn", format="synthetic", classes=())
    with pytest.raises(ConfigError, match=r"lies in .*w/thumbnails, where"):
        write_shards(str(tmp_path / "w"), drawn, workers=0)
    assert contents(tmp_path) == before


def test_beside_its_corpus_a_workspace_serves(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "w")
    before = contents(tmp_path / "w")
    for overwrite in (False, True):
        write_shards(str(tmp_path / "w"), manifest_of(corpus), workers=0, overwrite=overwrite)
        assert before.items() <= contents(tmp_path / "w").items()


@pytest.mark.parametrize("command", ["rho index", "rho shards", "rho thumbnails"])
def test_files_of_others_in_our_folders_stay(tmp_path: Path, command: str) -> None:
    names = (
        "index/mine.csv",
        "index/train.parquet",
        "scans/ct1.dcm",
        "scans/0123.parquet",
        "rejects/mine.parquet",
        "rejects/notes.tmp",
        "shards/00000.tar",
        "shards/train-1.tar",
        "shards/a/b.txt",
        "index/x.parquet.tmp",
        "thumbnails/6-raw/shards/mine.tar",
        "thumbnails/6-raw/index/mine.csv",
    )
    place = tmp_path / "w"
    if command == "rho thumbnails":
        write_workspace(place, [6])
    for name in names:
        put(place / name, name)
    (place / "rejects/000000.parquet").mkdir() if command == "rho thumbnails" else None
    tars, corpus = write_tars(tmp_path / "tars"), write_corpus(tmp_path / "corpus")
    for overwrite in (False, False, True):
        if command == "rho index":
            index(place, tars, overwrite=overwrite)
        elif command == "rho shards":
            write_shards(str(place), manifest_of(corpus), workers=0, overwrite=overwrite)
        else:
            write_thumbnails(place, ThumbnailsConfig(size=6, format="raw", workers=0, overwrite=overwrite))
        assert {name: (place / name).read_text() for name in names} == {name: name for name in names}


def test_overwriting_an_index_touches_no_tar(tmp_path: Path) -> None:
    tars = write_tars(tmp_path / "tars")
    index(tmp_path / "w", tars)
    write_tars(tmp_path / "w/shards", "train-000000.tar", "00007.tar")
    kept = {name: digest for name, digest in contents(tmp_path / "w").items() if name.startswith("shards/")}
    index(tmp_path / "w", tars)  # these tars are not of `rho shards`, though one is named so
    index(tmp_path / "w", tars, holdout=0.5, overwrite=True)
    assert kept.items() <= contents(tmp_path / "w").items()
    index(tmp_path / "fresh", tars, holdout=0.5)
    assert contents(tmp_path / "w") == contents(tmp_path / "fresh") | kept


@pytest.mark.parametrize("killed", [False, True])
def test_shards_that_were_written_are_never_removed_by_an_index(tmp_path: Path, killed: bool) -> None:
    tars = write_tars(tmp_path / "tars")
    write_shards(str(tmp_path / "w"), manifest(root=str(tars)), workers=0)
    if killed:
        (tmp_path / "w/corpus.json").unlink()
    before = contents(tmp_path / "w")
    for overwrite in (False, True):
        with pytest.raises(WorkspaceError, match=r"shards of its own \(2 tars\), .* delete .*/w/shards first"):
            index(tmp_path / "w", tars, overwrite=overwrite)
        assert contents(tmp_path / "w") == before
    shutil.rmtree(tmp_path / "w/shards")
    if not killed:
        with pytest.raises(WorkspaceError, match=r"the index of shards of its own: .*--overwrite"):
            index(tmp_path / "w", tars)
    index(tmp_path / "w", tars, overwrite=True)
    index(tmp_path / "fresh", tars)
    assert contents(tmp_path / "w") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_tars_under_shard_names_are_not_overwritten(tmp_path: Path, overwrite: bool) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    write_tars(tmp_path / "w/shards", "00000.tar", "train-000000.tar", "train-000001.tar")
    os.truncate(tmp_path / "w/shards/train-000001.tar", 700)
    tar(tmp_path / "w/shards/val-000002.tar", ("0.jpg", jpeg(0)), ("0.cls", b"0"), ("0.json", b'{"key": "0"}'))
    before = contents(tmp_path / "w")
    with pytest.raises(WorkspaceError, match=r"holds train-000000\.tar \(3 such\), which is no shard of ours"):
        write_shards(str(tmp_path / "w"), manifest_of(corpus), workers=0, overwrite=overwrite)
    assert contents(tmp_path / "w") == before


@pytest.mark.parametrize("task", ["classification", "multi_label", "pairs"])
def test_shards_of_a_killed_writer_are_known_as_ours(tmp_path: Path, task: str) -> None:
    wanted = {
        "classification": lambda: manifest_of(write_corpus(tmp_path / "corpus")),
        "multi_label": lambda: tagged_manifest(write_tagged(tmp_path / "corpus", as_text, 60), separator=";"),
        "pairs": lambda: pairs_manifest(write_pairs_tar(tmp_path / "corpus/a.tar", range(60)).parent, shard_size=20),
    }[task]()
    write_shards(str(tmp_path / "w"), wanted, workers=0)
    before = contents(tmp_path / "w")
    (tmp_path / "w/corpus.json").unlink()
    for folder in ("index", "rejects"):
        shutil.rmtree(tmp_path / "w" / folder)
    write_shards(str(tmp_path / "w"), wanted, workers=0)
    assert contents(tmp_path / "w") == before


def test_the_help_says_what_overwriting_removes() -> None:
    for command, said in (("index", "index/, rejects/ and scans/; never a tar"), ("shards", "shards/, index/ and")):
        shown = " ".join(CliRunner().invoke(rho, [command, "--help"], terminal_width=100).output.split())
        assert said in shown


def test_a_refusal_begins_no_workspace(tmp_path: Path) -> None:
    tars = write_tars(tmp_path / "cc/shards")
    done = CliRunner().invoke(rho, ["index", str(tars), "--workspace", str(tmp_path / "cc"), "--overwrite"])
    assert isinstance(done.exception, ConfigError)
    assert [path.name for path in (tmp_path / "cc").iterdir()] == ["shards"]
