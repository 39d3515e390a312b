"""`rho init`: a manifest to begin with, for every format, where there was none."""

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rhostream.cli.main import rho
from rhostream.errors import ConfigError
from rhostream.pipeline.config import load_manifest, write_template
from rhostream.pipeline.corpora.formats import FORMATS

MANIFESTS = Path(__file__).parents[2] / "data_manifests"


def init(*arguments: str) -> Result:
    return CliRunner().invoke(rho, ["init", *arguments])


@pytest.mark.parametrize("name", sorted({*FORMATS, *(file.stem for file in MANIFESTS.glob("*.toml"))}))
def test_manifest_of_every_format_is_valid_with_its_root(name: str, tmp_path: Path) -> None:
    output = tmp_path / "mine.toml"
    result = init(name, "--root", str(tmp_path / 'my "photos"'), "--output", str(output))
    assert result.exit_code == 0, result.output
    assert f"rho shards --manifest {output}" in result.output
    manifest = load_manifest(output)
    assert manifest.root == str(tmp_path / 'my "photos"')
    assert name in (manifest.format, manifest.name)
    text = output.read_text()
    assert "make " not in text
    assert f"--manifest {output}" in text


def test_manifest_without_a_root_keeps_the_templates_own(tmp_path: Path) -> None:
    write_template("table", str(tmp_path / "t.toml"))
    assert tomllib.loads((tmp_path / "t.toml").read_text())["root"] == "data/table"


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "labels.toml").write_text("mine")
    with pytest.raises(ConfigError, match=r"labels\.toml is there already, and is not what was written there last"):
        write_template("table", str(tmp_path / "labels.toml"))
    assert (tmp_path / "labels.toml").read_text() == "mine"


def test_unknown_format_and_missing_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no manifest for 'parquet': there are .*imagefolder.*webdataset"):
        write_template("parquet", str(tmp_path / "t.toml"))
    with pytest.raises(ConfigError, match=r"there is no folder .*typo; name a file in one that exists"):
        write_template("table", str(tmp_path / "typo" / "t.toml"))
    assert not list(tmp_path.iterdir())
