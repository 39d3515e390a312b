"""The IL table: every sample scored by a model that was not trained on it, whoever shares the work."""

import io
import json
import os
import signal
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from helpers.corpus_fixture import write_shapes
from helpers.made_once import made_once
from helpers.tiny import rewrite_shard, write_corpus_card
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from rhostream import ConfigError, IrreducibleLossError, RhostreamError, ShardError, WorkspaceError, schema
from rhostream.cli.main import rho
from rhostream.loaders.index.corpus_metadata import IL_MODEL_KEY, SHARD_DIGEST_KEY, CorpusMetadata, read_shard_rows
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.il.metadata import ILMetadata, il_costs, model_digest
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.jobs.engine import Engine
from rhostream.pipeline.jobs.lock import exclusive_lock
from rhostream.pipeline.jobs.processes import in_processes
from rhostream.pipeline.models.evaluation import EvaluationSet
from rhostream.pipeline.thumbnails.write import write_thumbnails


@made_once
def prepare(folder: Path, cross_fit: int = 5, **changes: Any) -> Workspace:
    """A corpus with an IL model of one epoch, not yet scored."""
    settings: dict[str, Any] = {"splits": {"train": 120, "holdout": 60, "test": 30}, "shard_rows": 50} | changes
    workspace = write_shapes(folder, **settings)
    train_il(workspace, ILTrainConfig(model="bn_cnn", steps=2, cross_fit=cross_fit, device="cpu"))
    return workspace


def parts(workspace: Workspace, name: str = "bn_cnn") -> dict[str, bytes]:
    folder = f"il/{name}/scores"
    return {file: workspace.read_bytes(f"{folder}/{file}") for file in workspace.names(folder)}


def table(workspace: Workspace, name: str = "bn_cnn") -> pa.Table:
    folder = f"il/{name}/scores"
    return pa.concat_tables([workspace.read_table(f"{folder}/{file}") for file in workspace.names(folder)])


def score(workspace: Workspace, **settings: Any) -> Any:
    return score_il(workspace, ILScoreConfig(device="cpu", **settings))


def change_metadata(workspace: Workspace, **changes: Any) -> None:
    write_corpus_card(workspace, workspace.read_json("corpus.json") | changes)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return prepare(tmp_path / "w")


def test_exact_thumbnails_replace_the_shards_and_give_the_same_table(workspace: Workspace) -> None:
    score(workspace)
    expected = parts(workspace)
    size = CorpusMetadata.read(workspace).image_spec().size
    write_thumbnails(workspace, ThumbnailsConfig(size=size, format="raw", workers=0))
    for shard in CorpusMetadata.read(workspace).split("train"):
        Path(workspace.path(shard.tar)).rename(f"{workspace.path(shard.tar)}.away")
    score(workspace, overwrite=True)
    assert parts(workspace) == expected
    with Path(workspace.path(f"thumbnails/{size}-raw/shards/train-000001.tar")).open("r+b") as tar:
        tar.seek(600)
        tar.write(b"damaged!")
    with pytest.raises(
        ShardError, match=rf"thumbnails/{size}-raw/shards/train-000001.tar row 0.*format raw, .*overwrite"
    ):
        score(workspace, overwrite=True)
    with pytest.raises(ShardError, match="has vanished"):  # the thumbnails are of the training split alone
        score(workspace, overwrite=True, splits=("train", "test"))


@pytest.mark.slow
def test_learnt_losses_tell_mislabeled_from_clean(tmp_path: Path) -> None:
    workspace = write_shapes(tmp_path, splits={"train": 300, "holdout": 500}, noise=0.2)
    train_il(workspace, ILTrainConfig(steps=80, device="cpu"))
    scores = score(workspace)
    losses = table(workspace, "strided_cnn")
    assert losses.schema.remove_metadata() == schema.IL
    index = pa.concat_tables(
        [workspace.read_table(shard.index) for shard in CorpusMetadata.read(workspace).split("train")]
    )
    assert losses.column("key").to_pylist() == index.column("key").to_pylist()
    il, labels = losses.column("il").to_numpy(), index.column("label").to_numpy()
    wrong = labels != index.column("clean_label").to_numpy()
    assert 40 < wrong.sum() < 80
    mislabeled, clean = il[wrong], il[~wrong]
    assert np.mean(mislabeled[:, None] > clean[None]) > 0.85  # area under the ROC curve
    predicted, confidence = losses.column("predicted").to_numpy(), losses.column("confidence").to_numpy()
    right = predicted == labels
    np.testing.assert_allclose(np.exp(-il[right]), confidence[right], rtol=1e-5)
    assert np.all(np.exp(-il[~right]) <= confidence[~right])
    assert scores.accuracy == pytest.approx(right.mean())
    assert scores.mean_il == pytest.approx(il.mean(), rel=1e-5)


def test_losses_do_not_depend_on_who_shares_a_batch(tmp_path: Path) -> None:
    workspace = prepare(tmp_path / "w", cross_fit=0)
    score(workspace, batch_size=500)
    whole = table(workspace)
    score(workspace, batch_size=7, overwrite=True)
    np.testing.assert_allclose(table(workspace).column("il"), whole.column("il"), atol=1e-4)
    metadata = ILMetadata.read(workspace, "bn_cnn")
    corpus = CorpusMetadata.read(workspace)
    expected = EvaluationSet(workspace, corpus.split("train"), corpus.image_spec()).evaluate(
        metadata.load(workspace, metadata.models[0]), torch.device("cpu")
    )
    assert np.mean(whole.column("il").to_numpy()) == pytest.approx(expected.loss, rel=1e-4)


@pytest.mark.slow
def test_copies_are_scored_once_and_under_their_own_labels(tmp_path: Path) -> None:
    workspace = prepare(tmp_path, 0, splits={"train": 90, "holdout": 60}, shard_rows=90, copies=3, noise=0.3)
    score(workspace, batch_size=8)
    corpus, metadata, found = CorpusMetadata.read(workspace), ILMetadata.read(workspace, "bn_cnn"), table(workspace)
    (shard,) = corpus.split("train")
    with tarfile.open(workspace.path(shard.tar)) as tar:
        pictures = [Image.open(io.BytesIO(tar.extractfile(member).read())) for member in tar]  # type: ignore[union-attr]
    images = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
    model = metadata.load(workspace, metadata.models[0]).eval()
    with torch.no_grad():
        log_p = model(corpus.image_spec().normalize(images)).double().log_softmax(1).numpy()
    labels = found.column("label").to_numpy()
    assert sum(len(set(labels[start : start + 3])) > 1 for start in range(0, 90, 3)) > 5  # wrong labels among copies
    np.testing.assert_allclose(found.column("il"), -log_p[np.arange(90), labels], atol=1e-4)
    np.testing.assert_array_equal(found.column("predicted"), log_p.argmax(1))
    forward = FlopCounterMode(display=False)
    with torch.no_grad(), forward:
        model(corpus.image_spec().normalize(images[::3]))
    assert il_costs(workspace, "bn_cnn")["flops"]["il_score"] == forward.get_total_flops()


def test_no_train_row_is_in_sample_scored_holdout_rows_are(workspace: Workspace) -> None:
    assert score(workspace).in_sample == 0
    assert set(table(workspace).column("shard").to_pylist()) == {"train-000000", "train-000001", "train-000002"}
    scores = score(workspace, splits=("train", "holdout", "test"))
    assert (scores.rows, scores.in_sample) == (210, 60)
    rows = table(workspace)
    assert {row["shard"][:7] for row in rows.to_pylist() if row["in_sample"]} == {"holdout"}


@pytest.mark.slow
def test_folded_samples_are_scored_by_models_that_never_saw_them(tmp_path: Path) -> None:
    workspace = prepare(tmp_path, 0, splits={"train": 90, "test": 10}, folds=3)
    assert score(workspace, splits=("train", "test")).in_sample == 0
    metadata, corpus = ILMetadata.read(workspace, "bn_cnn"), CorpusMetadata.read(workspace)
    for shard in corpus.split("train"):
        mean = float(np.mean(workspace.read_table(shard.scores("bn_cnn")).column("il").to_numpy()))
        samples = EvaluationSet(workspace, (shard,), corpus.image_spec())
        for model in metadata.models:
            assert (shard.name in model.trained_on) == (model.fold != shard.fold)
            loss = samples.evaluate(metadata.load(workspace, model), torch.device("cpu")).loss
            assert (loss == pytest.approx(mean, rel=5e-6)) == (model.fold == shard.fold)


@pytest.mark.slow
def test_workers_and_ranks_share_the_shards_and_agree_bytewise(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert score(workspace).scored_shards == 3
    alone, flops = parts(workspace), il_costs(workspace, "bn_cnn")["flops"]["il_score"]
    score(workspace, overwrite=True, workers=2)
    assert parts(workspace) == alone
    assert il_costs(workspace, "bn_cnn")["flops"]["il_score"] == flops > 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    for engine in ("local", "static"):  # under torchrun a rank scores its share, asked to or not
        workspace.remove("il/bn_cnn/scores")
        for rank, shards in (("0", ["train-000000", "train-000002"]), ("1", ["train-000001"])):
            monkeypatch.setenv("RANK", rank)
            before = set(parts(workspace))
            assert score(workspace, engine=engine).scored_shards == len(shards)
            assert set(parts(workspace)) - before == {f"{shard}.parquet" for shard in shards}
        assert parts(workspace) == alone


def test_only_missing_damaged_or_foreign_parts_are_scored(workspace: Workspace) -> None:
    score(workspace)
    first = parts(workspace)
    assert score(workspace).scored_shards == 0
    Path(workspace.path("il/bn_cnn/scores/train-000001.parquet")).write_bytes(b"PAR1 and no more")
    Path(workspace.path("il/bn_cnn/scores/train-000002.parquet")).unlink()
    assert score(workspace).scored_shards == 2
    assert parts(workspace) == first
    rewrite_shard(workspace, "train-000001", "new")
    assert score(workspace).scored_shards == 1
    found = pq.read_schema(workspace.path("il/bn_cnn/scores/train-000001.parquet")).metadata
    assert found[SHARD_DIGEST_KEY] == b"new"
    assert found[IL_MODEL_KEY].decode() == model_digest(workspace, "bn_cnn")
    assert score(workspace, only=("holdout-000000",)).rows == 50
    with pytest.raises(WorkspaceError, match=r"no shard 'train-00001'.*train-000001"):
        score(workspace, only=("train-00001",))
    with pytest.raises(WorkspaceError, match=r"no split 'val'"):
        score(workspace, splits=("val",))


def test_a_model_of_other_classes_or_other_shards_is_refused(workspace: Workspace) -> None:
    shards, classes = (workspace.read_json("corpus.json")[name] for name in ("shards", "classes"))
    change_metadata(workspace, classes=["disc", "square", "cross", "star"])
    with pytest.raises(IrreducibleLossError, match=r"knows 4 classes.*'ring'.*'star'.*--overwrite"):
        score(workspace)
    changed = [shard | {"digest": "new"} if shard["name"] == "holdout-000001" else shard for shard in shards]
    change_metadata(workspace, classes=classes, shards=changed)
    with pytest.raises(IrreducibleLossError, match=r"1 of its training shards changed, holdout-000001.*--overwrite"):
        score(workspace)
    with pytest.raises(IrreducibleLossError, match="holdout-000001"):
        train_il(workspace, ILTrainConfig(model="bn_cnn", steps=2, device="cpu"))
    change_metadata(workspace, shards=shards)
    with pytest.raises(WorkspaceError, match=r"no trained IL model 'mlp'.*bn_cnn.*train the IL model \(name mlp\)"):
        score(workspace, name="mlp")


def test_the_only_trained_model_or_the_manifests_is_the_default(workspace: Workspace) -> None:
    workspace.write_bytes("il/mlp/checkpoints/model.pt", b"of a training that has not ended")
    assert score(workspace).name == "bn_cnn"
    train_il(workspace, ILTrainConfig(model="mlp", name="second", steps=2, device="cpu"))
    with pytest.raises(ConfigError, match="2 trained IL models, bn_cnn, second: name"):
        score(workspace)
    manifest = workspace.read_json("corpus.json")["manifest"]
    for settings, meant in (({"model": "bn_cnn"}, "bn_cnn"), ({"model": "bn_cnn", "name": "second"}, "second")):
        change_metadata(workspace, manifest=manifest | {"il": settings})
        assert score(workspace).name == meant
    workspace.remove("il")
    with pytest.raises(ConfigError, match="no trained IL model: train the IL model"):
        score(workspace)


def test_a_second_scoring_with_one_model_is_refused_outside_ranks(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with exclusive_lock(workspace, "rho il", "il/bn_cnn"):
        with pytest.raises(WorkspaceError, match=r"another `rho il` is writing to .*il/bn_cnn: wait"):
            score(workspace)
        assert not parts(workspace)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with exclusive_lock(workspace, "rho il", "il/bn_cnn", engine=Engine(name="static")):
        assert score(workspace).scored_shards == 2


def test_weights_that_the_metadata_does_not_describe_are_refused(workspace: Workspace) -> None:
    path = Path(workspace.path("il/bn_cnn/model.safetensors"))
    path.write_bytes(path.read_bytes()[:-4] + bytes(4))
    with pytest.raises(WorkspaceError, match=r"model.safetensors is not the one that its metadata describes"):
        score(workspace)


def test_losses_that_are_not_finite_are_refused_with_counts(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = ILMetadata.load

    def broken(*arguments: Any) -> torch.nn.Module:
        model = load(*arguments)
        list(model.parameters())[-1].data[0] = float("nan")
        return model

    monkeypatch.setattr(ILMetadata, "load", broken)
    with pytest.raises(IrreducibleLossError, match=r"50 of 50 samples of train-000000"):
        score(workspace)
    assert not parts(workspace)


@pytest.mark.slow
def test_a_damaged_shards_image_is_named_in_any_process(workspace: Workspace) -> None:
    shard = CorpusMetadata.read(workspace).split("train")[1]
    rows = read_shard_rows(workspace, shard)
    with Path(workspace.path(shard.tar)).open("r+b") as tar:
        tar.seek(int(rows.offsets[7]))
        tar.write(bytes(int(rows.sizes[7])))
    for workers in (0, 1):
        with pytest.raises(ShardError, match=r"train-000001.tar row 7, key 'k000057'"):
            score(workspace, workers=workers)
    assert "train-000001.parquet" not in parts(workspace)


@pytest.mark.slow
def test_a_killed_worker_is_noticed() -> None:
    with pytest.raises(RhostreamError, match="died"):
        list(in_processes(_killed_by, [signal.SIGKILL], workers=1))


def _killed_by(number: int) -> Any:
    return lambda signal_number: os.kill(os.getpid(), signal_number)


def test_the_command_finds_the_model_and_prints_json(workspace: Workspace) -> None:
    arguments = ["il", "score", "--workspace", workspace.location, "--device", "cpu"]
    printed = json.loads(CliRunner().invoke(rho, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert (printed["name"], printed["rows"], printed["in_sample"], printed["scored_shards"]) == ("bn_cnn", 120, 0, 3)
    assert "mean_il" in CliRunner().invoke(rho, arguments, catch_exceptions=False).stdout
