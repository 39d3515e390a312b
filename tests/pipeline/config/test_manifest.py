"""Manifests: what they may say, and that a mistake is answered with its cause and remedy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.foreign_tars import sample, tar

from rhostream.errors import ConfigError
from rhostream.pipeline.config.manifest import Manifest, Noise, load_manifest
from rhostream.pipeline.in_place.tars import index_tars
from rhostream.pipeline.shards.write import write_shards

COMPLETE = """
name = "shirts"
format = "table"
root = "data/shirts"
seed = 3
holdout = 0.2
shard_size = 50
max_side = 256
classes = ["a", "b"]
[options]
file = "labels.csv"
[noise]
kind = "structured"
rate = 0.4
pairs = [["a", "b"]]
[image]
size = 32
[il]
steps = 3
"""


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write(text: str) -> str:
        path = tmp_path / "manifests" / "shirts.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


def test_a_complete_manifest_is_read(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    manifest = load_manifest(write(COMPLETE))
    assert manifest == Manifest(
        name="shirts",
        format="table",
        root=str(tmp_path / "manifests/data/shirts"),
        seed=3,
        holdout=0.2,
        shard_size=50,
        max_side=256,
        classes=("a", "b"),
        options={"file": "labels.csv"},
        noise=Noise(kind="structured", rate=0.4, pairs=(("a", "b"),)),
        image={"size": 32},
        il={"steps": 3},
    )


def test_a_relative_root_starts_at_the_manifest_or_working_directory(
    write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    path = write('format = "table"\nroot = "../corpus"')
    assert load_manifest(path).root == str(tmp_path / "corpus")
    monkeypatch.chdir(tmp_path)
    assert load_manifest("manifests/shirts.toml").root == "corpus"
    assert load_manifest(path, {"root": "elsewhere"}).root == "elsewhere"
    assert load_manifest(write('format = "table"\nroot = "/data"')).root == "/data"
    assert load_manifest(write('format = "table"\nroot = "s3://bucket/x"')).root == "s3://bucket/x"
    assert load_manifest(write('format = "table"\nroot = "~/x"')).root == os.path.expanduser("~/x")  # noqa: PTH111


def test_flags_win_over_the_environment_which_wins_over_the_manifest(write) -> None:  # type: ignore[no-untyped-def]
    path = write(COMPLETE)
    assert load_manifest(path, {"seed": None}, {"seed": 4}).seed == 4
    assert load_manifest(path, {"seed": 5}, {"seed": 4}).seed == 5
    assert load_manifest(path, {"max_side": 0}).max_side == 0


def test_holdout_and_folds_are_those_of_the_strongest_layer(write) -> None:  # type: ignore[no-untyped-def]
    path = write(COMPLETE)
    folds = load_manifest(path, {"folds": 2})
    assert (folds.folds, folds.holdout) == (2, 0.0)
    folded = write('format = "table"\nfolds = 3')
    assert load_manifest(folded).holdout == 0.0
    assert (load_manifest(folded, {"holdout": 0.4}).holdout, load_manifest(folded, {"holdout": 0.4}).folds) == (0.4, 0)
    assert load_manifest(path, {"folds": 2}, {"holdout": 0.4}).folds == 2
    both = load_manifest(folded, {"folds": 2, "holdout": 0.1})
    assert (both.folds, both.holdout) == (2, 0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('format = "table"\nholdut = 0.1', "unknown setting 'holdut'; did you mean 'holdout'"),
        ('format = "table"\n[noise]\nrat = 0.1', "did you mean 'rate'"),
        ('format = "table"\n[noise]\nrate = 1.5', "rate 1.5"),
        ('format = "table"\n[noise]\nkind = "wild"', "uniform, structured"),
        ('format = "table"\nholdout = 0.0', "holdout 0.0"),
        ('format = "table"\nholdout = 1', "holdout 1.0"),
        ('format = "table"\nfolds = 1', "folds 1"),
        ('format = "table"\nfolds = -2', "folds -2"),
        ('format = "table"\nshard_size = 0', "shard_size 0"),
        ('format = "table"\nmax_side = -1', "max_side -1"),
        ('format = "table"\nmax_reject_share = 2', "max_reject_share 2.0"),
        ('format = "table"\nseed = "x"', "seed = 'x' is not a whole number"),
        ('format = "table"\nfolds = true', "folds = True is not a whole number"),
        ('format = "table"\n[il]\nstep = 3', "[il]: unknown setting 'step'; did you mean 'steps'?"),
        ('format = "table"\n[il]\nsteps = "3"', "[il]: steps = '3' is not a whole number"),
        ('format = "table"\n[train]\nstepz = 3', "[train]: unknown setting 'stepz'; did you mean 'steps'?"),
        ('format = "table"\n[train]\nschedule = "cosin"', "[train]: schedule = 'cosin' is not one of cosine, linear"),
        ('format = "table"\n[train]\nshare = 1.5', "[train]: share 1.5: give a number of at least 0 and at most 1"),
        ('format = "table"\n[il]\nlearning_rate = 0.0', "[il]: learning_rate 0.0: give a number above 0"),
        ('format = "table"\n[train]\nlearning_rate = true', "[train]: learning_rate = True is not a number"),
        ('name = "x"', "no `format`"),
        ("format = ", "not valid TOML"),
        ("format = 'table'\nname = 'a\xff'", ""),
    ],
)
def test_mistakes_are_named_in_one_line(write, text: str, message: str) -> None:  # type: ignore[no-untyped-def]
    path = write(text)
    if not message:
        Path(path).write_bytes(text.encode("latin-1"))
        message = "not valid TOML"
    with pytest.raises(ConfigError) as caught:
        load_manifest(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_reader_option_stops_before_anything_is_written(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    wrong = write('format = "webdataset"\nroot = "."\n[options]\nlable = "cls"')
    tar(Path(wrong).parent / "a.tar", *sample("0", "0"))
    for run in (
        lambda: write_shards(str(tmp_path / "w"), load_manifest(wrong), workers=0),
        lambda: index_tars(str(tmp_path / "w"), [str(Path(wrong).parent)], load_manifest(wrong), workers=0),
    ):
        with pytest.raises(ConfigError, match=r"\[options\] of webdataset: unknown setting 'lable'; .*'label'"):
            run()
    assert not (tmp_path / "w").exists()


def test_reading_a_manifest_imports_no_torch(write) -> None:  # type: ignore[no-untyped-def]
    code = (
        "import sys; from rhostream.pipeline.config.manifest import load_manifest; "
        f"load_manifest({write(COMPLETE)!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_manifest_names_those_that_are_there(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = Path(write('format = "table"'))
    with pytest.raises(ConfigError, match=r"other\.toml is not there; there are .*shirts\.toml"):
        load_manifest(path.with_name("other.toml"))
    with pytest.raises(ConfigError, match="holds no manifest"):
        load_manifest(tmp_path / "nowhere" / "x.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_manifest(tmp_path)
