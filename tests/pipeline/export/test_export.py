"""`rho export`: its results applied by `rho shards`, and read by the tools they are for, without our package."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from click.testing import CliRunner
from helpers.shards_corpus import CLASSES, contents, manifest_of, rejects, samples, write_corpus

from rhostream import ConfigError, ShardError
from rhostream.cli.main import rho
from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.clean_list_config import CleanListConfig
from rhostream.pipeline.config.manifest import load_manifest
from rhostream.pipeline.export.clean_list import clean_list
from rhostream.pipeline.export.formats import write_fiftyone, write_webdataset
from rhostream.pipeline.export.subset import Choice, Subset
from rhostream.pipeline.shards import hash_buckets
from rhostream.pipeline.shards.clean_list import CleanList
from rhostream.pipeline.shards.write import write_shards
from rhostream.pipeline.sql.database import query
from rhostream.schema import CLEAN_LIST, IL


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus beside its workspace `w`; the IL model contradicts every fifth training sample, from 0.5 sure to 0.9."""
    folder = tmp_path_factory.mktemp("export")
    write_shards(str(folder / "w"), manifest_of(write_corpus(folder / "corpus")), workers=0)
    workspace = Workspace(folder / "w")
    for shard in CorpusMetadata.read(workspace).split("train"):
        rows = []
        for row in workspace.read_table(shard.index).to_pylist():
            doubted = row["row"] % 5 == 0
            rows.append(
                {
                    "il_model": "m",
                    "key": row["key"],
                    "shard": row["shard"],
                    "row": row["row"],
                    "label": row["label"],
                    "il": 3.0 if doubted else 1.0,
                    "predicted": (row["label"] + doubted) % 3,
                    "in_sample": False,
                    "confidence": 0.9 if row["row"] == 0 else 0.5,
                    "entropy": 0.4,
                }
            )
        workspace.write_table(shard.scores("m"), pa.Table.from_pylist(rows, IL))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def run(*arguments: str) -> str:
    return CliRunner().invoke(rho, ["export", *arguments], catch_exceptions=False).stdout


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_cleaned_corpus_changed_exactly_as_the_list_says(folder: Path, suffix: str) -> None:
    workspace, listed, cleaned = str(folder / "w"), str(folder / f"clean.{suffix}"), str(folder / "cleaned.toml")
    told = run("list", "--workspace", workspace, "--relabel", "0.8", "--output", listed)
    run("manifest", "--workspace", workspace, "--clean-list", listed, "--output", cleaned)
    before = {row["key"]: row for row in samples(folder / "w")}
    doubted = [row for row in before.values() if row["split"] == "train" and int(str(row["row"])) % 5 == 0]
    dropped = {row["key"] for row in doubted if row["row"] != 0}
    moved = {row["key"]: (int(str(row["label"])) + 1) % 3 for row in doubted if row["row"] == 0}
    assert dropped
    assert f"{len(dropped)} to drop, " in told
    assert f", {len(moved)} to relabel" in told

    summary = write_shards(str(folder / "new"), load_manifest(cleaned), workers=0)
    assert summary.entries == sum(summary.samples.values()) + sum(summary.rejects.values()) == 60
    assert summary.rejects == {"excluded": len(dropped)}
    assert {row["key"] for row in rejects(folder / "new")} == dropped
    after = {row["key"]: row for row in samples(folder / "new")}
    assert after.keys() == before.keys() - dropped
    for key, row in after.items():
        assert row["label"] == moved.get(key, before[key]["label"])
        assert row["class"] == CLASSES[int(str(row["label"]))]
        assert (row["split"], row["content_hash"]) == (before[key]["split"], before[key]["content_hash"])


def test_a_list_that_drops_most_entries_stops_no_run(folder: Path) -> None:
    rows = [row for row in samples(folder / "w") if row["split"] == "train"]
    keys = [str(row["key"]) for row in rows if row["content_hash"] != rows[0]["content_hash"]]
    pq.write_table(
        pa.table({"key": keys, "action": ["drop"] * len(keys), "class": ["cat"] * len(keys)}), folder / "l.parquet"
    )
    manifest = manifest_of(folder / "corpus", clean_list=str(folder / "l.parquet"), max_reject_share=0.1)
    summary = write_shards(str(folder / "new"), manifest, workers=0)
    assert (summary.samples["train"], summary.rejects["excluded"]) == (1, len(keys))


def test_a_list_beyond_memory_cleans_alike(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = samples(folder / "w")
    asked = {
        "key": [str(row["key"]) for row in rows[::3]],
        "action": [("drop", "relabel", "keep")[n % 3] for n in range(20)],
    }
    pq.write_table(pa.table(asked | {"class": [CLASSES[0]] * 20}), folder / "l.parquet", row_group_size=7)
    manifest = manifest_of(folder / "corpus", clean_list=str(folder / "l.parquet"))
    write_shards(str(folder / "at-once"), manifest, workers=0)
    monkeypatch.setattr(hash_buckets, "_MOST_BYTES", 1000)
    write_shards(str(folder / "by-files"), manifest, workers=0)
    assert len(rejects(folder / "at-once")) > 3
    assert contents(folder / "by-files") == contents(folder / "at-once")


@pytest.mark.parametrize("split", [{}, {"folds": 2, "holdout": 0.1}, {"folds": 2, "holdout": 0.0}])
def test_the_exported_manifest_differs_by_its_list_alone(folder: Path, split: dict[str, float]) -> None:
    card = Workspace(folder / "w").read_json("corpus.json")
    card["manifest"] |= split
    Workspace(folder / "w").write_json("corpus.json", card)
    pq.write_table(clean_list(str(folder / "w")), folder / "clean.parquet")
    run(
        "manifest",
        "--workspace",
        str(folder / "w"),
        "--clean-list",
        str(folder / "clean.parquet"),
        "--output",
        str(folder / "cleaned.toml"),
    )
    found = load_manifest(folder / "cleaned.toml").to_dict()
    own = (
        manifest_of(folder.parent.parent / "corpus").to_dict()
        | split
        | {
            "name": "cleaned",
            "clean_list": str(folder / "clean.parquet"),
            "root": found["root"],
        }
    )
    assert found == own
    assert Path(found["root"]).samefile(Workspace(folder / "w").read_json("corpus.json")["manifest"]["root"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            {"key": ["nobody"], "action": ["drop"], "class": ["cat"]},
            "no entry for 1 of its keys, for instance 'nobody'",
        ),
        ({"key": ["a"], "action": ["relabel"], "class": ["fish"]}, "class 'fish' is none of the corpus's: cat, dog"),
        (
            {"key": ["a"], "action": ["delete"], "class": ["cat"]},
            "unknown action 'delete'; known are keep, relabel, drop",
        ),
        ({"key": ["a", "a"], "action": ["drop"] * 2, "class": ["cat"] * 2}, "holds a key twice"),
        ({"key": ["a"], "action": ["drop"]}, "lacks the column class"),
    ],
)
def test_an_unfit_list_is_refused_in_one_line(folder: Path, rows: dict[str, list[str]], message: str) -> None:
    pq.write_table(pa.table(rows), folder / "l.parquet")
    manifest = manifest_of(folder / "corpus", clean_list=str(folder / "l.parquet"))
    with pytest.raises(ConfigError, match=message):
        write_shards(str(folder / "new"), manifest, workers=0)


def test_a_missing_or_invalid_list_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.parquet.*: export one"):
        CleanList.read(str(tmp_path / "gone.parquet"))
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(ConfigError, match=r"x\.parquet is no Parquet file"):
        CleanList.read(str(tmp_path / "x.parquet"))


def test_reasons_of_a_run_need_a_run(made: Path) -> None:
    with pytest.raises(ConfigError, match="--drop redundant: only a run can tell, name one with --run"):
        CleanListConfig(drop=("redundant",))
    with pytest.raises(ConfigError, match="--drop 'redundnat': known reasons are"):
        clean_list(str(made / "w"), CleanListConfig(drop=("redundnat",), run="r"))


@pytest.mark.slow
def test_cleanlab_trains_on_the_list_as_it_is(made: Path, tmp_path: Path) -> None:
    import cleanlab  # and scipy: seconds that no other test needs
    import pandas
    from sklearn.linear_model import LogisticRegression

    run("list", "--workspace", str(made / "w"), "--output", str(tmp_path / "clean.parquet"))
    table = pq.read_table(tmp_path / "clean.parquet")
    assert table.schema.equals(CLEAN_LIST)
    issues = pandas.read_parquet(tmp_path / "clean.parquet")
    names = ["is_label_issue", "label_quality", "given_label", "predicted_label"]
    features = np.random.default_rng(0).normal(size=(len(issues), 3)) + issues["given_label"].to_numpy()[:, None]
    learner = cleanlab.classification.CleanLearning(LogisticRegression())
    learner.fit(features, labels=issues["given_label"].to_numpy(), label_issues=issues[names])
    kept = learner.get_label_issues()
    assert kept["is_label_issue"].sum() == issues["is_label_issue"].sum() > 0
    assert issues["label_quality"].is_monotonic_increasing


def test_plain_webdataset_reads_the_subset(made: Path, tmp_path: Path) -> None:
    sql = "SELECT key, il, predicted FROM il WHERE il > 1"
    run("webdataset", "--workspace", str(made / "w"), "--sql", sql, "--samples-per-tar", "4", "--output", str(tmp_path))
    tars = sorted(map(str, tmp_path.glob("*.tar")))
    read = list(webdataset.WebDataset(tars, shardshuffle=False).decode("pil"))
    expected = {
        row["key"]: row
        for row in query(str(made / "w"), "FROM samples SEMI JOIN il ON il.key = samples.key AND il > 1").to_pylist()
    }
    assert len(tars) == -(-len(expected) // 4) > 1
    assert {sample["__key__"] for sample in read} == expected.keys()
    for sample in read:
        row = expected[sample["__key__"]]
        assert sample["cls"] == row["label"]
        assert sample["jpg"].size == (row["width"], row["height"])
        assert (sample["json"]["source"], sample["json"]["il"]) == (row["source"], 3.0)


def test_a_subset_by_clean_list_has_the_lists_labels(made: Path, tmp_path: Path) -> None:
    table = clean_list(str(made / "w"), CleanListConfig(relabel=0.8))
    pq.write_table(table, tmp_path / "clean.parquet")
    subset = list(Subset(str(made / "w"), Choice(clean_list=str(tmp_path / "clean.parquet"))))
    wanted = {row["key"]: row["label"] for row in table.to_pylist() if row["action"] != "drop"}
    assert {sample.key: sample.label for sample in subset} == wanted
    assert Counter(sample.facts["action"] for sample in subset)["relabel"] > 0


def test_fiftyones_layout_of_classification_datasets(made: Path, tmp_path: Path) -> None:
    """As FiftyOne's importer reads it: classes, and for each file's stem the number of its class."""
    pq.write_table(clean_list(str(made / "w")), tmp_path / "clean.parquet")
    run(
        "fiftyone",
        "--workspace",
        str(made / "w"),
        "--clean-list",
        str(tmp_path / "clean.parquet"),
        "--output",
        str(tmp_path / "out"),
    )
    labels = json.loads((tmp_path / "out" / "labels.json").read_text())
    predicted = json.loads((tmp_path / "out" / "predicted.json").read_text())
    assert labels["classes"] == list(CLASSES)
    rows = {row["key"]: row for row in query(str(made / "w"), "FROM samples").to_pylist()}
    files = {path.stem: path for path in (tmp_path / "out" / "data").iterdir()}
    assert files.keys() == labels["labels"].keys() == predicted["labels"].keys()
    for key, number in labels["labels"].items():
        assert number == rows[key]["label"]
        assert files[key].stat().st_size == rows[key]["size"]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({}, "exactly one of --reason, --sql and --clean-list"),
        ({"sql": "SELECT 'x' AS key"}, "1 of the keys are no samples, for instance 'x'"),
        ({"sql": "SELECT source FROM samples"}, "must return a column `key`"),
        ({"sql": "SELECT key FROM samples WHERE false"}, "no sample is chosen"),
        ({"sql": "SELECT key FROM samples UNION ALL FROM (SELECT key FROM samples)"}, "60 keys come twice"),
        ({"reasons": ("noisy",)}, "--reason 'noisy': known reasons are"),
        ({"reasons": ("redundant",)}, "no run to ask about: train a model"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_in_one_line(made: Path, choice: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Subset(str(made / "w"), Choice(**choice))  # type: ignore[arg-type]


def test_an_image_that_was_changed_is_not_exported(folder: Path) -> None:
    (tar,) = list((folder / "w" / "shards").glob("train-000000.tar"))
    content = bytearray(tar.read_bytes())
    content[700] ^= 255
    tar.write_bytes(content)
    with pytest.raises(ShardError, match="is not the image that was indexed"):
        list(Subset(str(folder / "w"), Choice(sql="SELECT key FROM samples")))


def test_an_output_that_holds_something_is_left_alone(made: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.tar").write_bytes(b"")
    for kind in ("webdataset", "fiftyone"):
        with pytest.raises(ConfigError, match=r"holds mine\.tar already"):
            run(kind, "--workspace", str(made / "w"), "--sql", "SELECT key FROM samples", "--output", str(tmp_path))


@pytest.mark.slow
def test_static_jobs_export_what_one_process_exports(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subset = Subset(folder / "w", Choice(sql="SELECT key FROM samples"))
    write_webdataset(subset, str(folder / "one"), samples_per_tar=16)
    write_fiftyone(subset, str(folder / "images"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        write_webdataset(subset, str(folder / "two"), samples_per_tar=16, engine="static")
        write_fiftyone(subset, str(folder / "shared"), engine="static")
    assert contents(folder / "two") == contents(folder / "one")
    assert contents(folder / "shared") == contents(folder / "images")
    with pytest.raises(ConfigError, match="--force with --engine static"):
        write_webdataset(subset, str(folder / "two"), force=True, engine="static")


@pytest.mark.slow
def test_two_workers_export_what_this_process_exports(made: Path, tmp_path: Path) -> None:
    subset = Subset(str(made / "w"), Choice(sql="SELECT key FROM samples"))
    for workers in (0, 2):
        (tmp_path / str(workers)).mkdir()
        write_webdataset(subset, str(tmp_path / f"{workers}/tars"), samples_per_tar=7, workers=workers)
        write_fiftyone(subset, str(tmp_path / f"{workers}/images"), workers=workers)
    assert contents(tmp_path / "2") == contents(tmp_path / "0")
