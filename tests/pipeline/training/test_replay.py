"""A replay trains another model on the very batches of an earlier run, and reads and scores nothing else."""

import signal
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from helpers.runs import dying_after, ledger, signaled_at
from helpers.tiny import write_il, write_workspace
from torch.utils.data import DataLoader

from rhostream import ConfigError, WorkspaceError
from rhostream.loaders.decode.image_reader import ImageReader
from rhostream.loaders.decode.stored_refs import StoredRefs
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.comparison.comparison import compare
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.training.loop import train
from rhostream.pipeline.training.properties import Properties
from rhostream.selection.replay import ReplayStream
from rhostream.selection.scoring.scorer import Scorer

CONFIG = TrainConfig(
    select="rho_loss",
    model="mlp",
    batch_size=4,
    super_batch_size=16,
    steps=24,
    evaluate_every=6,
    device="cpu",
    threads=1,
)
REPLAY = replace(CONFIG, name="again", replay="first", model="small_mlp", select="uniform", steps=1000, seed=5)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = write_workspace(tmp_path / "w", (40, 40, 20), test_rows=30)
    write_il(made)
    return made


def batches_of(workspace: Workspace, run: str) -> list[list[str]]:
    """The keys of each step's batch, by the ledger, sorted."""
    found: dict[int, list[str]] = {}
    for row in ledger(workspace, run):
        if row["selected"]:
            found.setdefault(row["trained"], []).append(row["key"])
    return [sorted(found[step]) for step in sorted(found)]


def results(workspace: Workspace, run: str) -> dict[str, bytes]:
    names = [f"runs/{run}/ledger/{name}" for name in workspace.names(f"runs/{run}/ledger")]
    return {name: workspace.read_bytes(name) for name in (*names, f"runs/{run}/model.safetensors")}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each request asks for."""
    counts: list[int] = []
    original = ImageReader.submit

    def submit(self: ImageReader, refs: StoredRefs, *arguments: Any, **settings: Any) -> Any:
        counts.append(len(refs))
        return original(self, refs, *arguments, **settings)

    monkeypatch.setattr(ImageReader, "submit", submit)
    return counts


def test_another_model_trains_on_the_earlier_batches_alone(
    workspace: Workspace, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(workspace, replace(CONFIG, name="first"))
    expected = batches_of(workspace, "first")
    assert [len(batch) for batch in expected] == [4] * 24
    workspace.remove("il")
    monkeypatch.setattr(Scorer, "outputs", lambda *_: pytest.fail("something was scored"))
    read.clear()
    run = train(workspace, REPLAY)
    assert batches_of(workspace, "again") == expected
    assert sum(read) - 30 == 24 * 4  # 30 are evaluated on
    last = run.metrics[-1]
    assert (last["step"], last["candidates"], last["flops_score"]) == (24, 0, 0)
    assert last["seconds_il_train"] == last["seconds_il_score"] == 0
    assert last["seconds_load"] > 0
    assert {row["reason"] for row in ledger(workspace, "again")} == {"not_needed"}


@pytest.mark.parametrize(
    "settings", [{"share": 0.75}, {"score_floor": 0.0}, {"select": "uniform", "prefilter": 1.0}], ids=str
)
def test_batches_filled_from_several_super_batches_are_replayed(
    workspace: Workspace, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    original = Properties.add
    monkeypatch.setattr(
        Properties, "add", lambda self, batch, *rest: (seen.append(list(batch.keys)), original(self, batch, *rest))
    )
    train(workspace, replace(CONFIG, name="first", **settings))
    assert len(seen) == 24
    stream = ReplayStream(workspace, "first")
    assert len(stream) == 24
    assert [sorted(batch.keys) for batch in stream] == [sorted(keys) for keys in seen]


def test_a_replay_ended_by_signals_equals_one_never_ended(workspace: Workspace) -> None:
    train(workspace, replace(CONFIG, name="first"))
    config = replace(REPLAY, augmentation="shift_flip")
    train(workspace, config)
    expected = results(workspace, "again")
    workspace.remove("runs/again")
    with signaled_at(5, signal.SIGTERM, saying="stopped by SIGTERM at step 5 of 24"):
        train(workspace, config)
    with dying_after(9):
        train(workspace, config)
    train(workspace, config)
    assert results(workspace, "again") == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_a_replayed_stream_resumes_at_any_step_with_workers(workspace: Workspace, workers: int) -> None:
    train(workspace, replace(CONFIG, name="first"))
    whole = [batch.keys for batch in ReplayStream(workspace, "first")]
    stream = ReplayStream(workspace, "first")
    source = DataLoader(stream, batch_size=None, num_workers=workers) if workers else stream
    batch = next(islice(source, 14, None))
    resumed = ReplayStream(workspace, "first")
    resumed.load_state_dict(batch.state)
    assert [batch.keys for batch in resumed] == whole[15:]
    assert list(resumed) == []
    with pytest.raises(WorkspaceError, match="was saved by a replay of another run, or of other steps"):
        ReplayStream(workspace, "first", steps=20).load_state_dict(batch.state)


def test_ranks_share_out_every_batch(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    train(workspace, replace(CONFIG, name="first"))
    whole = [sorted(batch.keys) for batch in ReplayStream(workspace, "first")]
    monkeypatch.setenv("WORLD_SIZE", "2")
    parts = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        parts.append([batch.keys for batch in ReplayStream(workspace, "first")])
    assert all(len(keys) == 2 for part in parts for keys in part)
    assert [sorted([*one, *other]) for one, other in zip(*parts, strict=True)] == whole


def test_a_run_beyond_replay_says_why_in_one_line(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="run 'first' has no ledger to replay; no run has one"):
        train(workspace, REPLAY)
    with dying_after(13):
        train(workspace, replace(CONFIG, name="first"))
    with pytest.raises(WorkspaceError, match=r"ledger of run 'first' ends at step 1\d of 24: finish the run before"):
        train(workspace, REPLAY)
    train(workspace, replace(CONFIG, name="first"))
    with pytest.raises(ConfigError, match="run 'first' has 24 steps to replay, asked for 25"):
        ReplayStream(workspace, "first", steps=25)
    with pytest.raises(ConfigError, match="replay 'first' in a comparison"):
        compare(workspace, REPLAY, ["uniform"])
    facts = workspace.read_json("runs/first/run.json")
    workspace.write_json("runs/first/run.json", facts | {"corpus_fingerprint": "another"})
    with pytest.raises(WorkspaceError, match=r"trained on another corpus or split \(another, this one is \w+\)"):
        train(workspace, REPLAY)
    workspace.write_json("runs/first/run.json", facts)
    workspace.remove("runs/first/ledger/000000007-rank0.parquet")
    with pytest.raises(WorkspaceError, match="the ledger of run 'first' lacks steps 7 to 12: it is incomplete"):
        train(workspace, REPLAY)


def test_a_sample_that_lies_elsewhere_is_noticed(workspace: Workspace, tmp_path: Path) -> None:
    train(workspace, replace(CONFIG, name="first"))
    other = write_workspace(tmp_path / "other", (20, 40, 40), test_rows=30)
    for name in workspace.names("runs/first/ledger"):
        other.write_bytes(f"runs/first/ledger/{name}", workspace.read_bytes(f"runs/first/ledger/{name}"))
    with pytest.raises(WorkspaceError, match=r"is not where it was|has no row"):
        list(ReplayStream(other, "first"))


def test_runs_drawn_with_weights_are_refused(workspace: Workspace) -> None:
    train(workspace, replace(CONFIG, name="first", select="grad_norm", rule="importance"))
    with pytest.raises(WorkspaceError, match=r"drew samples with weights \(importance sampling\)"):
        ReplayStream(workspace, "first")
