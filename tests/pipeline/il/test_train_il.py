"""The IL model: what trains it, which step is kept, and what happens when it is asked for again."""

import json
import math
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from helpers.corpus_fixture import write_shapes
from helpers.support import put

from rhostream import ConfigError, IrreducibleLossError, WorkspaceError
from rhostream.cli.main import rho
from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.il_config import ILTrainConfig
from rhostream.pipeline.il import fit
from rhostream.pipeline.il.fit import Fit
from rhostream.pipeline.il.metadata import ILMetadata, il_costs
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.jobs.interruption import Interrupted
from rhostream.pipeline.jobs.lock import exclusive_lock, hold_as_worker, remove_contents
from rhostream.pipeline.models.evaluation import EvaluationSet
from rhostream.pipeline.models.registry import build_model

QUICK: dict[str, Any] = {"steps": 3, "device": "cpu"}
HELD = 1.0  # seconds


def names(workspace: Workspace) -> set[str]:
    root = Path(workspace.root)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def shapes(tmp_path: Path) -> Workspace:
    return write_shapes(tmp_path / "w", splits={"train": 100, "holdout": 120, "test": 40}, noise=0.2, shard_rows=60)


@pytest.mark.slow
def test_the_kept_step_has_the_lowest_loss_on_validation_samples(shapes: Workspace) -> None:
    Path(shapes.path("shards/test-000000.tar")).unlink()  # whoever looks at the test split fails
    metadata = train_il(shapes, ILTrainConfig(steps=300, least_gain=0.0, device="cpu")).metadata
    (model,) = metadata.models
    steps = [each.step for each in model.evaluations]
    assert steps == [0, 8, 10, 13, 17, 22, 28, 35, 44, 55, 69, 87, 109, 137, 172, 215, 269, 300][: len(steps)]
    assert model.best.validation_loss == min(each.validation_loss for each in model.evaluations)
    assert model.trained_on.keys() == {"holdout-000000", "holdout-000001"}
    assert (model.trained_samples, model.validated_samples) == (120, 100)
    corpus = CorpusMetadata.read(shapes)
    again = EvaluationSet(shapes, corpus.split("train"), corpus.image_spec())
    kept = again.evaluate(metadata.load(shapes, model), torch.device("cpu"))
    assert kept.loss == pytest.approx(model.best.validation_loss, rel=1e-5)
    assert kept.accuracy == model.best.validation_accuracy
    assert model.evaluations[0].train_loss is None
    first = build_model("strided_cnn", 4, corpus.image_spec(), seed=0)
    assert model.evaluations[0].validation_loss == pytest.approx(
        again.evaluate(first, torch.device("cpu")).loss, rel=1e-5
    )
    assert ILMetadata.read(shapes, "strided_cnn") == metadata
    assert not any(name.startswith("il/strided_cnn/checkpoints") for name in names(shapes))


@pytest.mark.slow
@pytest.mark.parametrize("least_gain", [0.0, 0.05])
def test_training_ends_at_two_small_gains_or_one_rise(shapes: Workspace, least_gain: float) -> None:
    metadata = train_il(shapes, ILTrainConfig(model="mlp", least_gain=least_gain, device="cpu")).metadata
    losses = [each.validation_loss for each in metadata.models[0].evaluations]
    lowest = np.minimum.accumulate(losses)
    stalled = losses[1:] > (1 - least_gain) * lowest[:-1]
    twice = stalled & np.concatenate([[False], stalled[:-1]])
    learnt = lowest[1:] < 0.97 * np.log(4)
    over = learnt & (twice | (losses[1:] > lowest[:-1])) | (losses[1:] > 1.1 * lowest[:-1])
    assert over.nonzero()[0].tolist() == [len(over) - 1]


@pytest.mark.slow
def test_what_cannot_be_learnt_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "_GIVEN_UP", 60)
    workspace = write_shapes(tmp_path, splits={"train": 60, "holdout": 60}, noise=1.0)
    metadata = train_il(workspace, ILTrainConfig(model="small_mlp", learning_rate=1e-7, device="cpu")).metadata
    (model,) = metadata.models
    assert 60 <= model.evaluations[-1].step < 80


@pytest.mark.slow
def test_only_holdout_labels_reach_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "_RISEN", math.inf)  # as it does on all labels but one
    workspace = write_shapes(tmp_path, splits={"train": 60, "holdout": 60})
    table = workspace.read_table("index/holdout-000000.parquet")
    constant = table.set_column(
        table.schema.get_field_index("label"), table.schema.field("label"), pa.array([2] * 60, pa.int32())
    )
    workspace.write_table("index/holdout-000000.parquet", constant)
    metadata = train_il(workspace, ILTrainConfig(steps=60, learning_rate=1e-2, device="cpu")).metadata
    assert metadata.models[0].evaluations[-1].train_accuracy == 1.0
    corpus = CorpusMetadata.read(workspace)
    share = EvaluationSet(workspace, corpus.split("train"), corpus.image_spec())
    labels = torch.cat([batch.labels for batch in share.batches()])
    accuracy = metadata.models[0].evaluations[-1].validation_accuracy
    assert accuracy == pytest.approx(float((labels == 2).float().mean()))


@pytest.mark.slow
def test_with_folds_each_model_never_sees_its_own(tmp_path: Path) -> None:
    workspace = write_shapes(tmp_path, splits={"train": 90, "holdout": 30}, folds=3, shard_rows=20)
    metadata = train_il(workspace, ILTrainConfig(**QUICK)).metadata
    corpus = CorpusMetadata.read(workspace)
    assert [model.fold for model in metadata.models] == [0, 1, 2]
    for model in metadata.models:
        assert model.trained_on.keys() == {shard.name for shard in corpus.shards if shard.fold != model.fold}
        assert (model.trained_samples, model.validated_samples) == (90, 30)
        assert workspace.exists(f"il/strided_cnn/model-fold{model.fold}.safetensors")
    weights = [metadata.load(workspace, model).state_dict()["0.weight"] for model in metadata.models]
    assert not torch.equal(weights[0], weights[1])


@pytest.mark.parametrize("mistake", [{"model": "nope"}, {"device": "nope"}, {"weights": "gone.pt"}])
def test_a_training_that_cannot_begin_leaves_no_folder(shapes: Workspace, mistake: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        train_il(shapes, ILTrainConfig(**QUICK | mistake))
    assert shapes.names("il") == []


def test_a_trained_model_is_kept_another_needs_overwrite(shapes: Workspace) -> None:
    first = train_il(shapes, ILTrainConfig(**QUICK))
    assert not first.already_trained
    shapes.write_bytes("il/strided_cnn/scores/train-000000.parquet", b"of this model")
    before = {name: Path(shapes.path(name)).stat().st_mtime_ns for name in names(shapes)}
    again = train_il(shapes, ILTrainConfig(**QUICK, threads=1))
    assert again.already_trained
    assert again.metadata == first.metadata
    assert {name: Path(shapes.path(name)).stat().st_mtime_ns for name in names(shapes)} == before
    with pytest.raises(WorkspaceError, match=r"seed 0, asked for 1; steps 3, asked for 4.*--overwrite"):
        train_il(shapes, ILTrainConfig(steps=4, seed=1, device="cpu"))
    replaced = train_il(shapes, ILTrainConfig(steps=4, seed=1, device="cpu"), overwrite=True)
    assert replaced.metadata.config["steps"] == 4
    assert not shapes.exists("il/strided_cnn/scores/train-000000.parquet")


@pytest.mark.slow
def test_training_is_bytewise_reproducible_and_leaves_torchs_generator_alone(tmp_path: Path) -> None:
    contents = []
    for folder in ("a", "b"):
        workspace = write_shapes(tmp_path / folder, splits={"train": 40, "holdout": 80})
        torch.manual_seed(len(contents))
        state = torch.get_rng_state()
        train_il(workspace, ILTrainConfig(model="bn_cnn", augmentation="shift_flip", **QUICK))
        assert torch.equal(torch.get_rng_state(), state)
        contents.append([workspace.read_bytes(f"il/bn_cnn/{file}") for file in ("model.safetensors", "model.json")])
        assert il_costs(workspace, "bn_cnn")["flops"]["il_train"] > 0
    assert contents[0] == contents[1]


def test_convolutions_are_made_repeatable_and_the_callers_other_settings_hold(
    shapes: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    cudnn, seen, step = torch.backends.cudnn, set(), Fit._step

    def noting(*arguments: Any) -> Any:
        seen.add((cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32))
        return step(*arguments)

    monkeypatch.setattr(Fit, "_step", noting)
    for name, value in (("deterministic", False), ("benchmark", True), ("allow_tf32", False)):
        monkeypatch.setattr(cudnn, name, value)
    train_il(shapes, ILTrainConfig(steps=1, device="cpu"))
    assert seen == {(True, False, False)}
    assert (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32) == (False, True, False)


@pytest.mark.slow
@pytest.mark.parametrize("minutes", [10.0, 1e-9], ids=["stopped", "stopped, with checkpoints by time"])
def test_a_stopped_training_goes_on_to_the_same_bytes(tmp_path: Path, minutes: float) -> None:
    whole, stopped = (
        write_shapes(tmp_path / name, splits={"train": 60, "holdout": 60}, shard_rows=60)
        for name in ("whole", "stopped")
    )
    config = ILTrainConfig(steps=14, least_gain=0.0, batch_size=16, device="cpu", checkpoint_minutes=minutes)
    train_il(whole, config)
    original, at = Fit._step, 0
    for steps in (1, 8, 3):  # evaluations come at steps 8, 10, 13 and 14
        at += steps
        taken = 0

        def step(*arguments: Any, steps: int = steps) -> Any:
            nonlocal taken
            taken += 1
            if taken == steps:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Fit, "_step", step)
            with pytest.raises(
                Interrupted, match=f"IL model 'strided_cnn' stopped by SIGTERM at step {at}: it is kept"
            ):
                train_il(stopped, config)
    train_il(stopped, config)
    for name in ("model.json", "model.safetensors"):
        assert stopped.read_bytes(f"il/strided_cnn/{name}") == whole.read_bytes(f"il/strided_cnn/{name}")


def test_a_concurrent_training_of_the_same_model_is_refused(shapes: Workspace) -> None:
    with exclusive_lock(shapes, "rho il", "il/strided_cnn"):
        with pytest.raises(WorkspaceError, match=r"another `rho il` is writing to .*il/strided_cnn: wait"):
            train_il(shapes, ILTrainConfig(**QUICK))
        train_il(shapes, ILTrainConfig(name="other", **QUICK))
    train_il(shapes, ILTrainConfig(**QUICK))


def test_the_lock_outlives_overwrite(shapes: Workspace) -> None:
    train_il(shapes, ILTrainConfig(**QUICK))
    put(Path(shapes.path("il/strided_cnn/scores/train-000000.parquet.tmp")), "half")
    with exclusive_lock(shapes, "rho il", "il/strided_cnn"):
        remove_contents(shapes, "il/strided_cnn")
        assert list(Path(shapes.path("il/strided_cnn")).iterdir()) == []
        with pytest.raises(WorkspaceError, match="another `rho il`"):
            train_il(shapes, ILTrainConfig(**QUICK), overwrite=True)


@pytest.mark.slow
def test_a_training_waits_for_workers_of_a_killed_scoring(shapes: Workspace) -> None:
    train_il(shapes, ILTrainConfig(**QUICK))
    worker = multiprocessing.get_context("spawn").Process(target=hold, args=(shapes.location, "il/strided_cnn/scores"))
    worker.start()
    wait_for(Path(shapes.path("held")))
    train_il(shapes, ILTrainConfig(**QUICK))
    assert shapes.exists("no longer held"), "it did not wait"
    worker.join()


def hold(location: str, folder: str) -> None:
    hold_as_worker(Workspace(location), folder)
    Workspace(location).write_bytes("held", b"")
    time.sleep(HELD)
    Workspace(location).write_bytes("no longer held", b"")


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_a_training_that_diverges_says_so(shapes: Workspace) -> None:
    with pytest.raises(IrreducibleLossError, match=r"loss became nan by step \d+, .*--learning-rate"):
        train_il(shapes, ILTrainConfig(steps=60, learning_rate=1e20, device="cpu"))
    assert not shapes.exists("il/strided_cnn/model.json")


@pytest.mark.slow
def test_an_unfinished_training_of_other_settings_is_not_continued(shapes: Workspace) -> None:
    with pytest.raises(IrreducibleLossError):
        train_il(shapes, ILTrainConfig(steps=60, learning_rate=1e20, device="cpu"))
    with pytest.raises(WorkspaceError, match=r"learning_rate 1e\+20, asked for 0.002.*--overwrite"):
        train_il(shapes, ILTrainConfig(steps=60, device="cpu"))
    train_il(shapes, ILTrainConfig(steps=1, device="cpu"), overwrite=True)


def test_without_a_holdout_the_remedy_is_named(tmp_path: Path) -> None:
    workspace = write_shapes(tmp_path, splits={"train": 20})
    with pytest.raises(WorkspaceError, match=r"no samples in its holdout split.*--holdout, or with --folds"):
        train_il(workspace, ILTrainConfig(**QUICK))


@pytest.mark.slow
def test_a_model_from_scratch_is_no_model_from_weights(shapes: Workspace, tmp_path: Path) -> None:
    weights = tmp_path / "start.safetensors"
    model = build_model("mlp", 4, CorpusMetadata.read(shapes).image_spec(), seed=5)
    safetensors.torch.save_file(model.state_dict(), weights)
    train_il(shapes, ILTrainConfig(name="scratch", model="mlp", **QUICK))
    with pytest.raises(WorkspaceError, match=r"weights.*None, asked for 'start\.safetensors'|weights None, asked for"):
        train_il(shapes, ILTrainConfig(name="scratch", model="mlp", weights=str(weights), **QUICK))


@pytest.mark.slow
def test_a_weights_file_is_remembered_by_its_content(shapes: Workspace, tmp_path: Path) -> None:
    weights = tmp_path / "start.safetensors"
    safetensors.torch.save_file(
        build_model("mlp", 4, CorpusMetadata.read(shapes).image_spec(), seed=5).state_dict(), weights
    )
    config = ILTrainConfig(model="mlp", weights=str(weights), **QUICK)
    metadata = train_il(shapes, config).metadata
    assert metadata.config["weights"]["file"] == "start.safetensors"
    assert train_il(shapes, config).already_trained
    with pytest.raises(WorkspaceError, match="weights"):
        train_il(shapes, ILTrainConfig(model="mlp", **QUICK))
    with pytest.raises(ConfigError, match=r"none\.pt"):
        train_il(shapes, ILTrainConfig(model="mlp", weights=str(tmp_path / "none.pt"), **QUICK))


@pytest.mark.parametrize(
    "values",
    [
        {"steps": -1},
        {"validation_share": 0.0},
        {"name": "a/b"},
        {"name": ".a"},
        {"name": "a.parquet"},
        {"name": "a b"},
        {"least_gain": 1.0},
        {"schedule": "linear"},
        {"warmup": 0.5},
        {"clip_grad_norm": -1.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        ILTrainConfig(**values)


@pytest.mark.slow
def test_a_linear_schedule_takes_all_its_steps_and_is_remembered(shapes: Workspace) -> None:
    settings: dict[str, Any] = {"model": "mlp", "schedule": "linear", "clip_grad_norm": 1.0, "least_gain": 0.9}
    config = ILTrainConfig(steps=40, device="cpu", **settings)
    metadata = train_il(shapes, config).metadata
    assert metadata.models[0].evaluations[-1].step == 40
    assert (metadata.config["schedule"], metadata.config["clip_grad_norm"]) == ("linear", 1.0)
    train_il(shapes, config)
    with pytest.raises(WorkspaceError, match=r"clip_grad_norm 1.0, asked for None"):
        train_il(shapes, replace(config, clip_grad_norm=0.0))


def test_former_models_keep_the_settings_of_their_release(shapes: Workspace) -> None:
    config = ILTrainConfig(model="mlp", **QUICK)
    told = train_il(shapes, config).metadata.config
    assert not told.keys() & ILTrainConfig.UNTOLD.keys()
    train_il(shapes, config)
    with pytest.raises(WorkspaceError, match=r"clip_grad_norm None, asked for 1.0"):
        train_il(shapes, replace(config, clip_grad_norm=1.0))


def test_the_command_takes_flags_over_the_manifest_and_prints_json(shapes: Workspace) -> None:
    corpus = shapes.read_json("corpus.json")
    corpus["manifest"]["il"] = {"model": "mlp", "steps": 1, "learning_rate": 0.01}
    shapes.write_json("corpus.json", corpus)
    arguments = [
        "il",
        "train",
        "--workspace",
        shapes.location,
        "--steps",
        "2",
        "--cross-fit",
        "0",
        "--device",
        "cpu",
        "--json",
    ]
    result = CliRunner().invoke(rho, arguments, catch_exceptions=False)
    printed = json.loads(result.stdout)
    assert (printed["name"], printed["models"][0]["steps"], printed["already_trained"]) == ("mlp", 2, False)
    assert ILMetadata.read(shapes, "mlp").config["learning_rate"] == 0.01
    assert printed["models"][0]["validation_accuracy"] < 0.5
    assert "it is too weak to call labels wrong by" in result.stderr
    text = CliRunner().invoke(rho, arguments[:-1], catch_exceptions=False).stdout
    assert "validation_loss" in text
    assert "was already trained" in text


@pytest.mark.slow
def test_a_mistake_in_an_overwriting_command_removes_nothing(shapes: Workspace) -> None:
    config = ILTrainConfig(model="bn_cnn", steps=1, batch_size=16, name="kept")
    train_il(shapes, config)
    before = shapes.read_bytes("il/kept/model.safetensors")
    with pytest.raises(ConfigError, match="resnet51"):
        train_il(shapes, replace(config, model="resnet51"), overwrite=True)
    assert shapes.read_bytes("il/kept/model.safetensors") == before
