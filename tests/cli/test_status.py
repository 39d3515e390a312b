"""`rho status`: what is in a workspace at each stage, and the command that comes next."""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
from click.testing import CliRunner
from helpers.corpus_fixture import write_shapes

from rhostream import ConfigError
from rhostream.cli.main import rho

FORMER = Path(__file__).parents[1] / "fixtures" / "former_workspaces.tar.xz"


def status(workspace: str | Path) -> dict[str, Any]:
    result = CliRunner().invoke(rho, ["status", "--workspace", str(workspace), "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


@pytest.fixture
def former(tmp_path: Path) -> Path:
    with tarfile.open(FORMER) as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path / "ws"


def test_empty_or_missing_workspace_needs_shards(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        found = status(place)
        assert (found["corpus"], found["missing"]) == (None, ["there are no shards"])
        assert found["next"] == f"rho shards --manifest FILE --workspace {place}"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("url", ["http://", "https:///", "s3://"])
def test_a_url_without_a_host_is_no_empty_workspace(url: str) -> None:
    result = CliRunner().invoke(rho, ["status", "--workspace", url])
    assert isinstance(result.exception, ConfigError)
    assert "names no host or bucket" in str(result.exception)


def test_every_stage_names_the_next(former: Path) -> None:
    (former / "runs/uniform/model.safetensors").touch()
    assert status(former)["next"] == f"rho report --workspace {former}"
    shutil.rmtree(former / "runs")
    assert status(former)["next"] == f"rho train --workspace {former}"
    (former / "il/small_mlp/scores/train-000001.parquet").unlink()
    found = status(former)
    assert found["next"] == f"rho il score --workspace {former} --name small_mlp"
    assert "IL model small_mlp has scored 2 of 3 shards" in found["missing"]
    (former / "il/small_mlp/model.json").unlink()
    assert status(former)["next"] == f"rho il train --workspace {former} --model small_mlp"
    (former / "corpus.json").unlink()
    found = status(former)
    assert found["missing"] == ["the shards are not finished"]


def test_former_workspace_tells_what_is_to_be_made_again(former: Path) -> None:
    found = status(former)
    assert found["corpus"]["samples"] == {"holdout": 33, "test": 28, "train": 79, "val": 7}
    assert found["core_sets"] == ["svp"]
    assert [(run["name"], run["steps"], run["finished"]) for run in found["runs"]] == [
        ("rho_loss", 6, True),
        ("uniform", 6, False),
    ]
    assert any("thumbnails 8-jpeg are of a former release" in what for what in found["missing"])
    assert found["next"] == f"rho train --workspace {former} --name uniform --select uniform --overwrite"
    text = CliRunner().invoke(rho, ["status", "--workspace", str(former)]).stdout
    assert "run         uniform: 6 steps, not finished" in text
    assert text.splitlines()[-1].startswith("next ")


def test_remote_workspace_is_told_of_like_a_local_one(tmp_path: Path) -> None:
    write_shapes(tmp_path, splits={"train": 20, "holdout": 10})
    fsspec.filesystem("memory").put(str(tmp_path), "/status", recursive=True)
    there, here = status("memory://status"), status(tmp_path)
    assert there | {"workspace": "", "next": ""} == here | {"workspace": "", "next": ""}
    assert there["next"] == "rho il train --workspace memory://status"
