"""The product on image-text pairs: questions, the report, exports and clean lists, and classification by prompts."""

import json
import tarfile
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from helpers.pair_corpus import REFERENCE_OPTIONS, pairs_manifest, write_pairs_with_reference

from rhostream.errors import ConfigError
from rhostream.pipeline.config import CleanListConfig, TrainConfig
from rhostream.pipeline.explain import QUESTIONS, Options, explain
from rhostream.pipeline.export import Choice, Subset, clean_list, write_fiftyone, write_webdataset
from rhostream.pipeline.forecast import forecast_selections
from rhostream.pipeline.report import write_report
from rhostream.pipeline.report.summary import wrong_captions
from rhostream.pipeline.shards import write_shards
from rhostream.pipeline.sql import query
from rhostream.pipeline.training import measure, train

pytestmark = pytest.mark.slow


def config(**settings):
    usual = {
        "model": "small_clip", "batch_size": 16, "super_batch_size": 80, "steps": 8, "device": "cpu",
        "tensorboard": False, "evaluate_every": 4, "schedule": "constant",
    }  # fmt: skip
    return TrainConfig(**usual | settings)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = write_pairs_with_reference(tmp_path_factory.mktemp("product") / "w")
    train(workspace, config(select="learnability", name="learn"))
    train(workspace, config(select="uniform", name="uniform"))
    return workspace


@pytest.mark.parametrize(("beaten", "headline"), [(20, "About 40% are another's"), (35, "Not known: most captions")])
def test_a_model_that_knows_nothing_accuses_no_captions(beaten, headline):
    rows = [{"judged": 100, "contradicted": 60, "beaten": beaten, "truth_known": 0}]
    data = SimpleNamespace(answers={"classes": SimpleNamespace(rows=rows)}, right=lambda: 0.05)
    assert wrong_captions(data).headline.startswith(headline)


def test_every_question_is_answered(workspace):
    for question, title in QUESTIONS.items():
        options = Options(run="learn" if "run" in title.takes else None, by="color" if question == "classes" else None)
        answer = explain(workspace, question, *["learn", "uniform"][: title.runs], options=options)
        assert answer.num_rows or question in ("duplicates", "rejects", "redundant"), question
    told = explain(workspace, "skipped", options=Options(run="learn", limit=3))
    assert {"text", "similarity", "beaten_by"} <= {*told.column_names}


@pytest.mark.parametrize(
    ("question", "options", "message"),
    [("reasons", {"class_name": "red"}, "have no classes"), ("classes", {}, "name a column of samples with --by")],
)
def test_what_pairs_have_not_is_refused(workspace, question, options, message):
    with pytest.raises(ConfigError, match=message):
        explain(workspace, question, options=Options(run="learn", **options))


def test_a_plan_of_pairs_is_refused_in_one_line(workspace):
    with pytest.raises(ConfigError, match="does not follow from the reference table"):
        forecast_selections(workspace, config())


def test_report_shows_captions_escaped_and_suspected_mismatches(workspace, tmp_path):
    data = write_report(workspace, str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    suspicious = data.galleries["suspicious"].rows
    assert suspicious
    assert [row["beaten_by"] for row in suspicious] == sorted((row["beaten_by"] for row in suspicious), reverse=True)
    assert all(row["beaten_by"] > 0.25 for row in suspicious)
    assert next(row["caption"] for row in suspicious if row["caption"].startswith("a ")) in page
    assert "Which captions are wrong?" in page
    assert "The truth is known here: " in page
    for answer in data.galleries.values():
        assert query(workspace, answer.sql).num_rows == len(answer.rows)


def test_clean_list_drops_wrong_captions_of_a_new_corpus(workspace, tmp_path):
    table = clean_list(workspace, CleanListConfig(max_drop_share=1))
    rows = table.to_pylist()
    dropped = {row["key"] for row in rows if row["action"] == "drop"}
    truth = {
        row["key"]: row["mismatched"] for row in query(workspace, "SELECT key, mismatched FROM samples").to_pylist()
    }
    share = sum(bool(truth[row["key"]]) for row in rows) / len(rows)
    assert sum(bool(truth[key]) for key in dropped) / len(dropped) > 1.3 * share
    pq.write_table(table, tmp_path / "clean.parquet")
    root = workspace.read_json("corpus.json")["manifest"]["root"]
    manifest = pairs_manifest(root, holdout=0.0, options=REFERENCE_OPTIONS, clean_list=str(tmp_path / "clean.parquet"))
    write_shards(tmp_path / "clean", manifest, workers=0)
    found = query(tmp_path / "clean", "SELECT key FROM samples WHERE split = 'train'").column("key").to_pylist()
    assert {*found} == {row["key"] for row in rows} - dropped
    with pytest.raises(ConfigError, match="no other class"):
        clean_list(workspace, CleanListConfig(relabel=0.9))


def test_exported_tars_hold_images_captions_and_what_was_found(workspace, tmp_path):
    subset = Subset(workspace, Choice(reasons=("mislabeled",), run="learn"))
    (name,) = write_webdataset(subset, str(tmp_path / "suspects"))
    with tarfile.open(tmp_path / "suspects" / name) as tar:
        members = tar.getnames()
        assert [member.rpartition(".")[2] for member in members[:3]] == ["png", "txt", "json"]
        document = json.load(tar.extractfile(members[2]))
        assert document["caption"] == tar.extractfile(members[1]).read().decode()
    assert document["reason"] == "mislabeled"
    assert document["beaten_by"] > 0.25
    with pytest.raises(ConfigError, match="image-text pairs"):
        write_fiftyone(subset, str(tmp_path / "fiftyone"))


def test_images_are_classified_by_prompts(workspace):
    prompts = ("a {} disc on a dark ground", "a {} bar on a pale ground")
    settings = {"zero_shot": "color", "prompts": prompts, "metric": "zero_shot", "steps": 60, "batch_size": 32}
    run = train(workspace, config(select="easy_reference", name="prompts", **settings))
    assert run.metrics[-1]["test_zero_shot"] > 0.5  # one of four by chance
    assert measure(run.metrics, "zero_shot") == "zero-shot accuracy"
    with pytest.raises(ConfigError, match="no such column"):
        train(workspace, config(select="uniform", name="x", zero_shot="gone"))
    with pytest.raises(ConfigError, match="belongs"):
        config(zero_shot="color", prompts=("a photo",))
