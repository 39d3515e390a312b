"""A corpus and its finished workspace, which the tests of `rho shards` begin with."""

import shutil
from pathlib import Path

import pytest
from helpers.shards_corpus import manifest_of, write_corpus

from rhostream.pipeline.shards.write import write_shards


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished workspace; copy it, never change it."""
    workspace = tmp_path_factory.mktemp("finished") / "w"
    write_shards(str(workspace), manifest_of(corpus), workers=0)
    return workspace


@pytest.fixture
def workspace(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "w"))
