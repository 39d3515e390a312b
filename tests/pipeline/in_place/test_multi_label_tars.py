"""`rho index` over tars whose samples have lists of labels."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.tagged import CLASSES, as_tars, classes_of, tagged_manifest, write_tagged

from rhostream.errors import ConfigError, CorpusError, WorkspaceError
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.manifest import Manifest
from rhostream.pipeline.explain import explain
from rhostream.pipeline.in_place.tars import index_tars
from rhostream.pipeline.shards.write import write_shards
from rhostream.pipeline.sql import query


def manifest_of(folder: Path) -> Manifest:
    return tagged_manifest(folder, kind="webdataset", label="json.tags", splits={"test.tar": "test"})


def test_lists_in_tars_are_indexed_as_rho_shards_reads_them(tmp_path):
    root = write_tagged(tmp_path / "c", as_tars, 40)
    indexed = index_tars(tmp_path / "i", [str(root)], manifest_of(root), workers=0)
    written = write_shards(tmp_path / "w", manifest_of(root), workers=0)
    assert (indexed.classes, indexed.without_class) == (written.classes, written.without_class)
    rows = query(str(tmp_path / "i"), "SELECT key, labels, classes, split FROM samples ORDER BY key").to_pylist()
    again = query(str(tmp_path / "w"), "SELECT key, labels, classes, split FROM samples ORDER BY key").to_pylist()
    assert rows == again
    assert {row["key"]: tuple(row["classes"]) for row in rows} == {str(i): classes_of(i) for i in range(40)}
    assert Workspace(tmp_path / "i").read_json("corpus.json")["classes"] == list(CLASSES)
    assert explain(str(tmp_path / "i"), "duplicates").num_rows == 0


def test_lists_are_no_classes_without_the_task(tmp_path):
    root = write_tagged(tmp_path / "c", as_tars, 40)
    plain = replace(manifest_of(root), task="classification")
    with pytest.raises(CorpusError, match='task = "multi_label" reads'):
        index_tars(tmp_path / "i", [str(root)], plain, workers=0)
    with pytest.raises(ConfigError, match='task = "multi_label" reads'):
        write_shards(tmp_path / "w", plain, workers=0)


def test_an_index_of_another_task_is_not_taken_up(tmp_path):
    root = write_tagged(tmp_path / "c", as_tars, 40)
    index_tars(tmp_path / "i", [str(root)], manifest_of(root), workers=0)
    plain = Manifest(
        name="tagged",
        format="webdataset",
        root=str(root),
        holdout=0.3,
        image={"size": 16},
        classes=CLASSES,
        options={"label": "json.tags", "splits": {"test.tar": "test"}},
    )
    with pytest.raises(WorkspaceError, match="task"):
        index_tars(tmp_path / "i", [str(root)], plain, workers=0)
