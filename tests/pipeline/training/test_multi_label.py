"""A multi-label corpus from its table to runs, answers and exports."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from helpers.runs import dying_after, ledger
from helpers.tagged import CLASSES, as_columns, classes_of, tagged_manifest, write_tagged
from torch.nn import functional
from torch.utils.data import DataLoader

from rhostream import CandidateStream, ConfigError, EvaluationStream, MultiLabel, OnlineSelector
from rhostream.cli.main import rho
from rhostream.loaders.index.corpus_metadata import CorpusMetadata, read_shard_rows
from rhostream.loaders.storage.workspace import Workspace
from rhostream.loaders.stream.targets import make_targets
from rhostream.pipeline.config import CoreSetConfig, ILScoreConfig, ILTrainConfig, TrainConfig
from rhostream.pipeline.explain import explain
from rhostream.pipeline.explain.ask import Options
from rhostream.pipeline.export.clean_list import clean_list
from rhostream.pipeline.export.formats import write_fiftyone, write_webdataset
from rhostream.pipeline.export.subset import Choice, Subset
from rhostream.pipeline.il.core_set import write_core_set
from rhostream.pipeline.il.metadata import ILMetadata
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.models import build_model
from rhostream.pipeline.models.evaluation import EvaluationSet
from rhostream.pipeline.report import write_report
from rhostream.pipeline.shards.write import ShardsSummary, write_shards
from rhostream.pipeline.sql import query
from rhostream.pipeline.training.loop import train
from rhostream.selection.companions.live_il import LiveIL

CONFIG = TrainConfig(
    select="rho_loss",
    model="bn_cnn",
    batch_size=4,
    super_batch_size=16,
    steps=12,
    evaluate_every=4,
    device="cpu",
    threads=1,
    tensorboard=False,
)


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> ShardsSummary:
    """What `rho shards` made of a table with a column for each class."""
    folder = tmp_path_factory.mktemp("tagged")
    corpus = write_tagged(folder / "corpus", as_columns, 120)
    return write_shards(folder / "w", tagged_manifest(corpus, class_columns=["*"]), workers=0)


@pytest.fixture(scope="module")
def made(summary: ShardsSummary) -> Workspace:
    """That workspace with a scored IL model and a run of rho_loss."""
    workspace = Workspace(summary.workspace)
    train_il(
        workspace, ILTrainConfig(model="strided_cnn", steps=30, batch_size=16, device="cpu", cross_fit=0, threads=1)
    )
    score_il(workspace, ILScoreConfig(device="cpu", threads=1))
    train(workspace, CONFIG)
    return workspace


def number_of(source: str) -> int:
    return int(source.removesuffix(".png"))


def test_shards_keep_lists_and_count_samples_without_class(summary):
    place = Workspace(summary.workspace)
    assert (summary.entries, sum(summary.samples.values()), summary.without_class) == (120, 120, 15)
    assert summary.classes == dict.fromkeys(CLASSES, 60)
    corpus = place.read_json("corpus.json")
    assert (corpus["task"], corpus["counts"]["without_class"]) == ("multi_label", 15)
    rows = duckdb.sql(f"SELECT source, labels, classes FROM '{place.path('index/*.parquet')}'").fetchall()
    assert len(rows) == 120
    for source, labels, classes in rows:
        assert tuple(classes) == classes_of(number_of(source)) == tuple(CLASSES[label] for label in labels)
    with tarfile.open(place.path("shards/train-000000.tar")) as tar:
        names = tar.getnames()
        document = tar.extractfile(next(name for name in names if name.endswith(".json")))
        assert document is not None
        told = json.load(document)
    assert not [name for name in names if name.endswith(".cls")]
    assert tuple(told["classes"]) == classes_of(number_of(told["source"]))


def test_equal_images_with_other_lists_are_counted(tmp_path):
    root = write_tagged(tmp_path / "c", as_columns, 60)
    (root / "8.png").write_bytes((root / "7.png").read_bytes())
    (root / "16.png").write_bytes((root / "24.png").read_bytes())  # both without any class
    done = write_shards(tmp_path / "w", tagged_manifest(root, class_columns=["*"]), workers=0)
    assert (done.duplicates.groups, done.duplicates.labels_differ) == (2, 1)
    answer = explain(str(tmp_path / "w"), "duplicates").to_pylist()
    assert [sorted(row["classes"]) for row in answer] == [[[], list(classes_of(7))]]


def test_irreducible_loss_is_the_tasks_own_loss(made):
    corpus = CorpusMetadata.read(made)
    metadata = ILMetadata.read(made, "strided_cnn")
    shard = corpus.split("train")[0]
    table = made.read_table(shard.scores("strided_cnn"))
    assert table["labels"].to_pylist() == read_shard_rows(made, shard).labels.tolist()
    model = metadata.load(made, metadata.models[0])
    images, targets = zip(*EvaluationStream(made, shards=[shard]), strict=True)
    with torch.no_grad():
        logits = model(torch.stack(images))
    losses = functional.binary_cross_entropy_with_logits(logits, torch.stack(targets), reduction="none").mean(1)
    assert torch.allclose(torch.tensor(table["il"].to_pylist()), losses, atol=1e-5)
    p = logits.sigmoid()
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).mean(1)
    assert torch.allclose(torch.tensor(table["entropy"].to_pylist()), entropy, atol=1e-4)
    best = metadata.models[0].best
    assert best.validation_map is not None
    assert best.validation_map > 0.7


def test_streams_give_multi_hot_targets_of_each_sample(made):
    for super_batch in CandidateStream(made, il="strided_cnn", super_batch_size=16):
        sources = query(made, "SELECT key, source FROM samples").to_pylist()
        names = {row["key"]: classes_of(number_of(row["source"])) for row in sources}
        expected = [[float(name in names[key]) for name in CLASSES] for key in super_batch.keys]
        assert super_batch.labels.tolist() == expected
    test = EvaluationStream(made, "test", at_most=10)
    images, targets = next(iter(DataLoader(test, batch_size=10)))
    assert (images.shape, targets.shape, targets.dtype) == ((10, 3, 16, 16), (10, 3), torch.float32)
    assert torch.equal(targets, test.targets(slice(None)))


def test_a_run_is_scored_trained_and_evaluated_by_its_task(made):
    rows = [row for row in ledger(made, "rho_loss") if row["loss"] is not None]
    assert all(row["score"] == pytest.approx(row["loss"] - row["il"], abs=1e-6) for row in rows)
    of_key = {row["key"]: row["labels"] for row in query(made, "SELECT key, labels FROM samples").to_pylist()}
    assert all(row["labels"] == of_key[row["key"]] for row in rows)
    last = query(made, "SELECT * FROM metrics ORDER BY step DESC LIMIT 1").to_pylist()[0]
    corpus = CorpusMetadata.read(made)
    model = build_model("bn_cnn", 3, corpus.image_spec(), seed=0)
    model.load_state_dict(safetensors.torch.load(made.read_bytes("runs/rho_loss/model.safetensors")))
    measured = EvaluationSet(made, corpus.split("test"), corpus.image_spec()).evaluate(model, torch.device("cpu"))
    assert measured.mean_average_precision == pytest.approx(last["test_map"])
    assert (measured.loss, measured.accuracy) == pytest.approx((last["test_loss"], last["test_accuracy"]), abs=1e-5)
    assert last["test_map"] > 0.6


@pytest.mark.parametrize("settings", [{"share": 0.3}, {"live_il": True}], ids=str)
def test_a_killed_run_ends_as_if_never_killed(made, settings):
    name = next(iter(settings))
    config = replace(CONFIG, steps=8, **settings)
    train(made, replace(config, name=f"whole-{name}"))
    with dying_after(6):
        train(made, replace(config, name=f"killed-{name}"))
    train(made, replace(config, name=f"killed-{name}"))

    def nameless(run: str) -> list[dict[str, Any]]:
        return [row | {"run": ""} for row in ledger(made, run)]

    assert nameless(f"killed-{name}") == nameless(f"whole-{name}")
    weights = [made.read_bytes(f"runs/{kind}-{name}/model.safetensors") for kind in ("whole", "killed")]
    assert weights[0] == weights[1]


def test_a_replay_trains_on_the_same_lists(made):
    again = train(made, replace(CONFIG, name="again", replay="rho_loss"))
    assert again.metrics[-1]["test_map"] is not None
    chosen = "SELECT step, key FROM ledger WHERE run = '{}' AND selected ORDER BY step, key"
    assert query(made, chosen.format("again")) == query(made, chosen.format("rho_loss"))


def test_foreign_trainers_name_the_task_and_get_targets(made):
    stream = CandidateStream(made, il="strided_cnn", super_batch_size=16)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 3))
    batch = next(iter(OnlineSelector(model, batch_size=4, task=MultiLabel())(stream)))
    assert batch.labels.shape == (4, 3)
    assert torch.equal(batch.labels, make_targets(batch.candidates.labels, 3))
    with pytest.raises(ConfigError, match="task=MultiLabel"):
        next(iter(OnlineSelector(model, batch_size=4)(stream)))
    live = LiveIL(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ConfigError, match="task=MultiLabel"):
        live.il(next(iter(stream)))


def test_questions_count_a_sample_in_each_of_its_classes(made):
    about = Options(run="rho_loss")
    rows = {row["class"]: row for row in explain(made, "classes", options=about).to_pylist()}
    counted = query(
        made, "SELECT unnest(classes) AS class, count(*) AS n FROM samples WHERE split = 'train' GROUP BY 1"
    ).to_pylist()
    assert {name: row["samples"] for name, row in rows.items()} == {row["class"]: row["n"] for row in counted}
    of_red = explain(made, "skipped", options=Options(run="rho_loss", class_name="red")).to_pylist()
    assert all("red" in row["classes"] for row in of_red)
    for question in ("reasons", "redundant", "il", "run"):
        assert explain(made, question, options=about).num_rows >= 0
    assert explain(made, "run", options=Options(run="rho_loss", class_name="red")).num_rows > 0
    with pytest.raises(ConfigError, match="multi-label"):
        explain(made, "mislabeled", options=about)


def test_report_shows_classes_and_mean_average_precision(made, tmp_path):
    data = write_report(made, str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    assert "Mean average precision, and what it took" in page
    assert {row["class"] for row in data.answers["classes"].rows} == set(CLASSES)
    assert ">contradicted</th>" not in page


def test_comparison_is_by_mean_average_precision(made):
    asked = ["train", "--workspace", made.location, "--name", "rho_loss", "--select", "rho_loss", "--steps", "12"]
    asked += [
        "--batch-size",
        "4",
        "--super-batch-size",
        "16",
        "--model",
        "bn_cnn",
        "--evaluate-every",
        "4",
        "--device",
        "cpu",
    ]
    shown = CliRunner().invoke(rho, [*asked, "--threads", "1", "--no-tensorboard", "--json"])
    assert shown.exit_code == 0, shown.output
    told = json.loads(shown.stdout)
    (run,) = told["variants"][0]["runs"]
    assert run["measure"] == "mean average precision"
    last = query(made, "SELECT test_map FROM metrics WHERE run = 'rho_loss' ORDER BY step DESC LIMIT 1").to_pylist()[0]
    assert run["final_accuracy"] == last["test_map"]


def test_exports_hold_lists_or_are_refused(made, tmp_path):
    subset = Subset(made, Choice(sql="SELECT key, labels FROM samples WHERE list_contains(classes, 'red') LIMIT 5"))
    (name,) = write_webdataset(subset, str(tmp_path / "tars"))
    with tarfile.open(tmp_path / "tars" / name) as tar:
        members = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        documents = [json.load(file) for name, file in members.items() if name.endswith(".json") and file is not None]
    assert len(documents) == 5
    assert all("red" in document["classes"] for document in documents)
    assert not [name for name in members if name.endswith(".cls")]
    with pytest.raises(ConfigError, match="multi-label"):
        write_fiftyone(subset, str(tmp_path / "fiftyone"))
    with pytest.raises(ConfigError, match="multi-label"):
        clean_list(made)


@pytest.mark.parametrize(
    "settings",
    [{"select": "auto"}, {"select": "grad_norm"}, {"prefilter": 1.0}, {"class_floor": 0.5}, {"metric": "mcc"}],
    ids=str,
)
def test_what_asks_for_one_class_is_refused_at_once(made, settings):
    with pytest.raises(ConfigError, match="multi-label"):
        train(made, replace(CONFIG, name="refused", **settings))
    assert "refused" not in made.names("runs")


def test_learnable_selects_lists_and_hands_over_without_a_filter(made):
    run = train(made, replace(CONFIG, name="handed", select="learnable", steps=90, evaluate_every=45))
    decisions = [line["decision"] for line in run.metrics]
    assert decisions[-1] == "handed over" or decisions[-1].startswith("reducible")
    selections = duckdb.sql(f"SELECT DISTINCT selection FROM '{made.path('runs/handed/ledger/*.parquet')}'").fetchall()
    assert ("learnable batch_size=4 prefilter=False",) in selections


def test_one_class_that_samples_have_or_not_suffices(tmp_path):
    root = write_tagged(tmp_path / "c", as_columns, 40)
    write_shards(tmp_path / "w", tagged_manifest(root, class_columns=["red"], extra=[]), workers=0)
    train_il(str(tmp_path / "w"), ILTrainConfig(model="strided_cnn", steps=1, device="cpu", threads=1))
    shown = CliRunner().invoke(rho, ["status", "--workspace", str(tmp_path / "w")])
    assert "(table, multi-label): 1 classes" in shown.stdout


def test_a_core_set_keeps_the_least_certain(made):
    kept = write_core_set(made, CoreSetConfig(name="half", keep=0.5))
    assert kept.kept == round(kept.samples / 2)


def test_a_clean_list_drops_but_does_not_relabel(tmp_path):
    root = write_tagged(tmp_path / "c", as_columns, 40)
    manifest = tagged_manifest(root, class_columns=["*"])
    write_shards(tmp_path / "w", manifest, workers=0)
    keys = query(str(tmp_path / "w"), "SELECT key FROM samples WHERE split = 'train' ORDER BY key LIMIT 2")["key"]
    first, second = keys.to_pylist()
    Path(tmp_path / "list.csv").write_text(f"key,action,class\n{first},drop,\n{second},keep,\n")
    cleaned = write_shards(tmp_path / "x", replace(manifest, clean_list=str(tmp_path / "list.csv")), workers=0)
    assert cleaned.rejects == {"excluded": 1}
    Path(tmp_path / "list.csv").write_text(f"key,action,class\n{first},relabel,red\n")
    with pytest.raises(ConfigError, match="multi-label"):
        write_shards(tmp_path / "y", replace(manifest, clean_list=str(tmp_path / "list.csv")), workers=0)
