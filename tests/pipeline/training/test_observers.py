"""TensorBoard and Weights & Biases during `rho train`: they tell what the metrics tell, and disturb nothing."""

import importlib
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import CLASSES, write_il, write_workspace
from PIL import Image

from rhostream import ConfigError
from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.loaders.storage.workspace import Workspace
from rhostream.loaders.stream.candidate_table import CandidateTable
from rhostream.loaders.stream.exchange import Exchange
from rhostream.loaders.stream.super_batch import SuperBatch
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.training import observers
from rhostream.pipeline.training.loop import train
from rhostream.pipeline.training.picture_grid import PASSED_OVER, SELECTED, picture_grids
from rhostream.pipeline.training.run import Run
from rhostream.selection.selected_batch import SelectedBatch

CONFIG = TrainConfig(
    select="rho_loss",
    model="mlp",
    batch_size=4,
    super_batch_size=16,
    steps=12,
    evaluate_every=3,
    device="cpu",
    threads=1,
    augmentation="shift",
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = write_workspace(tmp_path / "w", (40, 40), test_rows=20)
    write_il(made)
    return made


def logged(folder: str) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(folder)
    events.Reload()
    return events


def test_tensorboard_is_told_what_the_metrics_tell(workspace: Workspace) -> None:
    run = train(workspace, CONFIG)
    events = logged(workspace.path("runs/rho_loss/tensorboard"))
    for name, column in (
        ("accuracy/test", "test_accuracy"),
        ("loss/selected", "train_loss"),
        ("seconds/score", "seconds_score"),
        ("selected/correct", "selected_correct"),
        ("flops/train", "flops_train"),
    ):
        told = [(event.step, event.value) for event in events.Scalars(name)]
        assert told == [(line["step"], pytest.approx(line[column])) for line in run.metrics], name
    assert [line["step"] for line in run.metrics] == [3, 6, 9, 12]
    assert set(events.Tags()["images"]) == {SELECTED, PASSED_OVER}
    assert "candidates/mislabeled" not in events.Tags()["scalars"]  # this corpus does not know


class Killed(BaseException):
    pass


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the next run die at this step, after it was logged and before its checkpoint is written."""
    save = Run.save_checkpoint

    def at(step: int) -> None:
        def save_or_die(run: Run, state: Any, exchange: Exchange) -> None:
            if state["step"] == step:
                raise Killed
            save(run, state, exchange)

        monkeypatch.setattr(Run, "save_checkpoint", save_or_die)

    return at


def test_a_resumed_run_logs_no_step_twice(workspace: Workspace, dying: Callable[[int], None]) -> None:
    for step in (9, 9, 12):
        dying(step)
        with pytest.raises(Killed):
            train(workspace, CONFIG)
    dying(0)
    run = train(workspace, CONFIG)
    events = logged(workspace.path("runs/rho_loss/tensorboard"))
    assert [event.step for event in events.Scalars("loss/selected")] == [3, 6, 9, 12]
    assert [event.step for event in events.Images(SELECTED)] == [3, 6, 9, 12]
    assert events.Scalars("seconds/train")[-1].value == pytest.approx(run.metrics[-1]["seconds_train"])


def test_a_run_is_the_same_whether_followed_or_not(workspace: Workspace) -> None:
    results = []
    for name, followed in (("r", True), ("r", False)):
        train(workspace, replace(CONFIG, name=name, tensorboard=followed), overwrite=True)
        assert workspace.exists("runs/r/tensorboard") == followed
        names = [f"runs/r/ledger/{part}" for part in workspace.names("runs/r/ledger")]
        results.append([workspace.read_bytes(part) for part in [*names, "runs/r/model.safetensors", "runs/r/run.json"]])
    assert len(results[0]) > 3
    assert results[0] == results[1]


def test_following_may_change_when_a_run_continues(workspace: Workspace, dying: Callable[[int], None]) -> None:
    dying(6)
    with pytest.raises(Killed):
        train(workspace, replace(CONFIG, tensorboard=False))
    dying(0)
    train(workspace, replace(CONFIG, tensorboard=True))
    events = logged(workspace.path("runs/rho_loss/tensorboard"))
    assert [event.step for event in events.Scalars("loss/selected")] == [6, 9, 12]


def test_the_event_file_of_a_remote_workspace_is_put_there(tmp_path: Path) -> None:
    place = "memory://test_observers"
    remote, local = Workspace(place), write_workspace(tmp_path / "w", (40, 40), test_rows=20)
    write_il(local)
    for file in (tmp_path / "w").rglob("*.*"):
        remote.write_bytes(str(file.relative_to(tmp_path / "w")), file.read_bytes())
    train(remote, CONFIG)
    (name,) = remote.names("runs/rho_loss/tensorboard")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / name).write_bytes(remote.read_bytes(f"runs/rho_loss/tensorboard/{name}"))
    assert [event.step for event in logged(str(tmp_path / "copy")).Scalars("loss/selected")] == [3, 6, 9, 12]


def test_a_run_is_unfollowed_without_the_packages_unless_asked(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observers, "_installed", lambda package: False)
    for config, message in (
        (
            replace(CONFIG, tensorboard=True),
            r"--tensorboard: .*not installed; run `pip install 'rhostream\[tensorboard\]'`",
        ),
        (replace(CONFIG, wandb="demo"), r"--wandb demo: .*not installed; run `pip install 'rhostream\[wandb\]'`"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(workspace, config)
        assert not workspace.exists("runs/rho_loss")
    train(workspace, CONFIG)
    assert not workspace.exists("runs/rho_loss/tensorboard")


def batch(il: list[float] | None) -> SelectedBatch:
    """Six candidates, of which 4 and 1 are selected; candidate i is all of brightness 40 * i."""
    images = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 3, 8, 8) * 40
    candidates = CandidateTable(
        keys=list("abcdef"),
        shards=["s"] * 6,
        rows=np.arange(6, dtype=np.int32),
        labels=np.array([0, 1, 2, 0, 1, 2], np.int32),
        il=None,
    )
    super_batch = SuperBatch(
        fields={"image": images},
        labels=torch.from_numpy(candidates.labels).long(),
        il=None if il is None else torch.tensor(il),
        candidates=candidates,
        passed_over=candidates.take(slice(0, 0)),
        specs={"image": ImageSpec(size=8)},
        epoch=0,
        index=0,
        size=6,
        state={},
    )
    return SelectedBatch(
        fields={"image": torch.zeros(2, 3, 8, 8)},
        labels=torch.tensor([1, 1]),
        weights=torch.ones(2),
        il=None,
        correct=None,
        candidates=candidates.take(np.array([4, 1])),
        specs=super_batch.specs,
        epoch=0,
        state={},
        super_batch=super_batch,
        considered=(super_batch,),
    )


def brightnesses(grid: Image.Image, count: int) -> list[int]:
    pixels = np.asarray(grid)
    return [int(pixels[30, 70 * place + 30, 0]) for place in range(count)]


def test_the_grids_show_the_selected_and_the_passed_over() -> None:
    grids = picture_grids(batch([0.5, 9.0, 1.0, 4.0, 0.0, 2.0]), CLASSES)
    assert brightnesses(grids[SELECTED], 3) == [160, 40, 255]  # then the white ground
    assert brightnesses(grids[PASSED_OVER], 4) == [120, 200, 80, 0]
    assert set(picture_grids(batch(None), CLASSES)) == {SELECTED}


def test_weights_and_biases_gets_every_step_once_and_the_settings(
    workspace: Workspace, dying: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("wandb", reason="NOT TESTED: wandb is not installed")
    for name, value in (
        ("WANDB_MODE", "offline"),
        ("WANDB_SILENT", "true"),
        ("HOME", str(tmp_path)),
        ("WANDB_CONFIG_DIR", str(tmp_path / "c")),
        ("WANDB_CACHE_DIR", str(tmp_path / "k")),
        ("WANDB_DATA_DIR", str(tmp_path / "d")),
    ):
        monkeypatch.setenv(name, value)
    config = replace(CONFIG, wandb="demo", tensorboard=False)
    states = random.getstate(), np.random.get_state()[1].tolist()
    dying(9)
    with pytest.raises(Killed):
        train(workspace, config)
    dying(0)
    run = train(workspace, config)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states
    folder, deadline = Path(workspace.path("runs/rho_loss/wandb")), time.monotonic() + 60
    parts: list[dict[str, Any]] = []
    while time.monotonic() < deadline:  # its own process writes the file of the part that was killed
        parts = [wandb_records(path) for path in sorted(folder.rglob("*.wandb"))]
        if all(part["id"] for part in parts):
            break
        time.sleep(0.1)
    assert len(parts) == 2
    assert {part["id"] for part in parts} == {workspace.read_json("runs/rho_loss/wandb.json")["id"]}
    assert parts[-1]["history"] == {
        line["step"]: pytest.approx(line["train_loss"]) for line in run.metrics if line["step"] >= 9
    }
    assert "rho_loss" in parts[-1]["config"]


def wandb_records(path: Path) -> dict[str, Any]:
    """Run id, settings and train losses by step of an offline run's file."""
    wandb_internal_pb2: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")

    found: dict[str, Any] = {"history": {}, "id": "", "config": ""}
    for data in leveldb_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "run":
            found["id"] = record.run.run_id
            found["config"] += str(record.run.config)
        if record.WhichOneof("record_type") == "history":
            items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            if "loss/selected" in items:
                found["history"][record.history.step.num or items["_step"]] = items["loss/selected"]
    return found


def leveldb_records(log: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format, behind the seven bytes by which Weights & Biases names its own."""
    block, header, at, record = 32768, 7, 7, b""
    while at + header <= len(log):
        if block - at % block < header:  # the rest of a block that is too short for a header is padding
            at += block - at % block
            continue
        size, kind = int.from_bytes(log[at + 4 : at + 6], "little"), log[at + 6]
        record += log[at + header : at + header + size]
        at += header + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield record
            record = b""
