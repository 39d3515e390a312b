"""Texts, end to end: shards, IL model, its table, training with selection, the questions and the report."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.dropin import run_example
from helpers.texts import text_manifest, write_table, write_texts, write_tokenizer

from rhostream.cli.main import rho
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import ILScoreConfig, ILTrainConfig, TrainConfig
from rhostream.pipeline.explain import Options, explain
from rhostream.pipeline.il import score_il, train_il
from rhostream.pipeline.report import write_report
from rhostream.pipeline.shards import write_shards
from rhostream.pipeline.training import train

pytestmark = pytest.mark.slow

HOSTILE = "<script>alert(1)</script> \u202egnp.exe \x1b[31m lovely"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """900 sentences, a quarter of them labeled wrongly, with a trained and scored IL model."""
    workspace = write_texts(tmp_path_factory.mktemp("texts"), 900, wrong=0.25)
    models = CorpusMetadata.read(workspace).manifest
    train_il(workspace, ILTrainConfig(**models["il"], learning_rate=0.01))
    score_il(workspace, ILScoreConfig())
    return workspace


def run(workspace, select, **settings):
    model = CorpusMetadata.read(workspace).manifest["train"]["model"]
    usual = {"model": model, "steps": 60, "batch_size": 16, "super_batch_size": 64, "learning_rate": 3e-3}
    usual |= {"name": select, "evaluate_every": 30, "tensorboard": False, "threads": 1}
    return train(workspace, TrainConfig(select=select, **(usual | settings)))


def test_il_model_of_texts_finds_the_wrong_labels(workspace):
    found = explain(workspace, "mislabeled", options=Options(limit=40)).to_pylist()
    assert found[-1]["precision_at_k"] > 0.8
    assert all(len(row["excerpt"].split()) > 3 for row in found)


def test_rho_loss_selects_fewer_wrong_labels_than_are_drawn(workspace):
    metrics = run(workspace, "rho_loss", model="bag_of_ngrams", schedule="cosine").metrics[-1]
    assert metrics["selected_mislabeled"] < 0.3 * metrics["candidates_mislabeled"]
    assert metrics["flops_score"] > 0
    reasons = explain(workspace, "reasons", options=Options(run="rho_loss")).to_pylist()
    assert sum(row["samples"] for row in reasons) == sum(
        shard.rows for shard in CorpusMetadata.read(workspace).split("train")
    )


def test_interrupted_run_on_texts_ends_as_one_that_was_not(workspace):
    run(workspace, "train_loss", name="halves", steps=16, evaluate_every=16, schedule="constant")
    whole = {"steps": 32, "evaluate_every": 16, "schedule": "constant"}
    run(workspace, "train_loss", name="whole", **whole)
    halves = run(workspace, "train_loss", name="halves", **whole)
    digests = {name: workspace.read_bytes(f"runs/{name}/model.safetensors") for name in ("halves", "whole")}
    assert digests["halves"] == digests["whole"]
    assert len(halves.metrics) == 2


def test_report_shows_texts_escaped(tmp_path):
    table = write_table(tmp_path / "corpus", 60, test_rows=10)
    names, *lines = table.read_text().splitlines()
    hostile = [f"{HOSTILE} {number}\t" + line.partition("\t")[2] for number, line in enumerate(lines)]
    table.write_text("\n".join([names, *hostile]))
    workspace = Workspace(tmp_path / "workspace")
    write_shards(workspace, text_manifest(tmp_path / "corpus"), workers=0)
    train_il(workspace, ILTrainConfig(model="bag_of_ngrams", steps=8))
    score_il(workspace, ILScoreConfig())
    run(workspace, "rho_loss", steps=3, evaluate_every=3, batch_size=4, super_batch_size=12)
    write_report(workspace, str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert(1)" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page


@pytest.mark.parametrize("name", ["hf_trainer_texts", "accelerate_texts"])
def test_example_trains_an_albert_on_selected_texts(workspace, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = run_example(name, monkeypatch, workspace.location, "--steps", 2)
    step = found["trainer"].state.global_step if "trainer" in found else found["step"]
    assert step == 2


def test_example_selects_the_tokens_of_a_language_model(workspace, monkeypatch):
    found = run_example("token_selection", monkeypatch, workspace.location, "--steps", 2)
    assert len(found["losses"]) == 3
    assert all(2 < loss < 6 for loss in found["losses"].values())  # log(256) is 5.5


def test_albert_of_a_folder_is_trained_by_its_own_tokens(workspace, tmp_path):
    transformers = pytest.importorskip("transformers")
    write_tokenizer(tmp_path / "albert")
    size = {"embedding_size": 8, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.AlbertConfig(vocab_size=6, intermediate_size=16, max_position_embeddings=32, **size)
    transformers.AlbertForSequenceClassification(config).save_pretrained(tmp_path / "albert")
    folder = str(tmp_path / "albert")
    made = run(workspace, "rho_loss", name="albert", model=f"transformers/{folder}", tokenizer=folder, steps=2)
    assert made.metrics[-1]["step"] == 2
    assert len(workspace.names("tokenizers", ".json")) == 1


def test_demo_on_texts_ends_with_table_and_plot(tmp_path):
    root = Path(__file__).parents[2]
    manifest = (root / "data_manifests" / "synthetic_text.toml").read_text()
    small = {"root": f'"{tmp_path / "corpus"}"', "texts": "900", "test_texts": "120", "evaluate_every": "6"}
    for name, value in small.items():
        manifest = re.sub(rf"^{name} = .*$", f"{name} = {value}", manifest, count=1, flags=re.MULTILINE)
    manifest = re.sub(r"^steps = .*$", "steps = 12", manifest, flags=re.MULTILINE)
    (tmp_path / "small.toml").write_text(manifest)
    recipe = re.search(r"^demo-text: shards il\n\t.* --compare (\S+)", (root / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    compare = re.sub(r"steps=\d+", "steps=18", recipe[1])
    said = ""
    for command in (
        f"shards --manifest {tmp_path / 'small.toml'} --workers 0", "il train", "il score",
        f"train --compare {compare} --no-tensorboard", "explain reasons --run " + compare.split(",")[-1].split(":")[0],
    ):  # fmt: skip
        done = CliRunner().invoke(rho, [*command.split(), "--workspace", str(tmp_path / "w")])
        assert done.exit_code == 0, done.output
        said += done.stdout
    assert re.search(r"^\+ rejects +8$", said, re.MULTILINE)
    assert re.search("^final accuracy", said, re.MULTILINE)
    assert list((tmp_path / "w" / "comparisons").glob("*.png"))
