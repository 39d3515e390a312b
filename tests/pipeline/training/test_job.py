"""`rho train` and `rho il train` in several processes: one run, whatever their number; one line, whatever fails."""

import importlib.metadata
import json
import os
import random
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from helpers.corpus_fixture import write_shapes
from helpers.ranks import on_jobs
from helpers.tiny import write_corpus_card, write_il, write_workspace
from safetensors.torch import load

from rhostream.errors import WorkspaceError
from rhostream.loaders.index.corpus_metadata import CorpusMetadata, read_shard_rows
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import ILTrainConfig, TrainConfig
from rhostream.pipeline.il import train_il
from rhostream.pipeline.training.loop import train
from rhostream.selection.scoring import remote_scorers

CONFIG = TrainConfig(select="rho_loss",
    model="mlp", batch_size=6, super_batch_size=24, score_chunk=6, steps=8, evaluate_every=3, device="cpu", threads=1,
    workers="0", schedule="constant", tensorboard=False,
)  # fmt: skip
#: Settings by the run's name; what every number of processes has to agree on.
RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sharded": {"shard_model": True, "clip_grad_norm": 0.1, "average_weights": True},
    "shared": {"share": 0.5, "score_age": 3},
    "gated": {"select": "grad_norm_is", "clip_grad_norm": 0.1, "average_weights": True},
}

#: Names the files of a checkpoint whose tensors are shared out.
PARTS = "parts.json"

#: Of a run that goes on under other numbers of processes.
ELASTIC: dict[str, Any] = {"average_weights": True}

#: Of runs whose scores are two steps old, in one process and by any number of scorers.
STALE: dict[str, Any] = {"staleness": 2, "score_chunk": 0}


def job(workspace: str, runs: str) -> list[Any]:
    """The metrics of these runs, each a name and settings."""
    return [train(workspace, replace(CONFIG, name=name, **settings)).metrics for name, settings in json.loads(runs)]


def delayed(workspace: str, runs: str) -> list[Any]:
    """The same, where scorers answer late, each time by another while."""
    send, chance = remote_scorers._send, random.Random(int(os.environ["RANK"]))

    def late(*message: Any) -> None:
        time.sleep(chance.uniform(0, 0.03))
        send(*message)

    remote_scorers._send = late
    return job(workspace, runs)


def folds(workspace: str) -> None:
    """Train the IL models of a corpus with folds."""
    train_il(workspace, ILTrainConfig(model="mlp", steps=4, device="cpu"))


def one_model(workspace: str) -> list[float]:
    """Train the IL model of a corpus without folds; the losses of its evaluations."""
    config = ILTrainConfig(model="mlp", batch_size=50, steps=12, device="cpu", precision="float32")
    (model,) = train_il(workspace, config).metadata.models
    return [loss for each in model.evaluations for loss in (each.validation_loss, each.train_loss) if loss is not None]


def command(told: str, *by_rank: str) -> list[Any]:
    """What `rho` says on stderr, called with the arguments of this rank, and its exit code."""
    from rhostream.cli.main import main

    arguments = by_rank[min(int(os.environ["RANK"]), len(by_rank) - 1)].split()
    file = Path(tempfile.mkstemp(prefix=os.environ["RANK"], dir=told)[1])
    with file.open("w") as stream:
        os.dup2(stream.fileno(), 2)
    sys.argv = ["rho", *arguments]
    try:
        main()
    except SystemExit as end:
        sys.stderr.flush()
        lines = [line for line in file.read_text().splitlines() if line.startswith("rho: ")]
        return [lines, end.code]
    raise AssertionError("`main` exits")


def of_mixed_versions(told: str, arguments: str) -> list[Any]:
    """The same, where one process runs another release than the others."""
    if os.environ["RANK"] == "1":
        version = importlib.metadata.version
        importlib.metadata.version = lambda name: "0.0.9" if name == "rhostream" else version(name)
    return command(told, arguments)


def on_a_full_disk(told: str, arguments: str) -> list[Any]:
    """The same, where one process can write no file of more than 20,000 bytes."""
    if os.environ["RANK"] == "1":
        sys.dont_write_bytecode = True  # Python takes a cut file for a whole one
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    return command(told, arguments)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = write_workspace(tmp_path_factory.mktemp("job") / "w", (40, 40, 20), test_rows=30)
    write_il(made)
    return made


def erase_last(workspace: Workspace, split: str) -> None:
    """Write zeros over the last image of a split."""
    shard = CorpusMetadata.read(workspace).split(split)[-1]
    rows = read_shard_rows(workspace, shard)
    start, size = int(rows.offsets[-1]), int(rows.sizes[-1])
    content = workspace.read_bytes(shard.tar)
    workspace.write_bytes(shard.tar, content[:start] + bytes(size) + content[start + size :])


def folded_workspace(folder: Path) -> Workspace:
    """Every other shard in the other fold."""
    made = write_workspace(folder, (40, 40, 20))
    corpus = made.read_json("corpus.json")
    shards = [shard | {"fold": number % 2} for number, shard in enumerate(corpus["shards"])]
    write_corpus_card(made, corpus | {"shards": shards})
    return made


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return folded_workspace(tmp_path_factory.mktemp("folds") / "w")


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Of 102 samples, the last batch of 50 has fewer than two for each of three processes."""
    return write_shapes(tmp_path_factory.mktemp("one") / "w", splits={"train": 60, "holdout": 102})


@pytest.fixture(scope="module")
def jobs(
    workspace: Workspace, folded: Workspace, held_out: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> list[list[Any]]:
    """All that is run by two and three processes here: what is slow to import is imported once."""
    told = str(tmp_path_factory.mktemp("told"))
    place = workspace.location
    other = write_workspace(tmp_path_factory.mktemp("other") / "w", (40, 40), test_rows=10)
    write_il(other)
    damaged = write_workspace(tmp_path_factory.mktemp("damaged") / "w", (40, 40), test_rows=30)
    erase_last(damaged, "test")

    def runs(ranks: int, **steps: int) -> str:
        names = {2: RUNS, 3: {"plain": {}, "sharded": RUNS["sharded"]}}[ranks]
        return json.dumps([(f"{name}-{ranks}", settings | steps) for name, settings in names.items()])

    of_rho = f"train --workspace {place} --device cpu --model mlp --steps 2 --super-batch-size 24"
    il_train = f"il train --workspace {held_out.location} --device cpu --name other"
    uniform = f"{of_rho.replace(place, damaged.location)} --batch-size 6 --select uniform"
    evaluated = [f"{uniform} --name whole", f"{uniform} --name sharded --shard-model"]
    return on_jobs(
        "pipeline.training.test_job",
        [
            (2, "job", (place, runs(2))),
            (3, "job", (place, runs(3))),
            (2, "job", (place, json.dumps([("elastic", ELASTIC | {"steps": 4})]))),
            (3, "job", (place, json.dumps([("elastic", ELASTIC | {"steps": 6, "shard_model": True})]))),
            (2, "command", (told, f"{of_rho} --batch-size 5")),
            (2, "command", (told, f"{of_rho} --batch-size 6", f"{of_rho} --batch-size 4")),
            (
                2,
                "command",
                (told, f"{of_rho} --batch-size 6", f"{of_rho.replace(place, other.location)} --batch-size 6"),
            ),
            (
                2,
                "command",
                (told, f"{of_rho} --batch-size 6", f"{of_rho.replace(place, f'{place}/nowhere')} --batch-size 6"),
            ),
            (2, "folds", (folded.location,)),
            (2, "delayed", (place, json.dumps([("scorers-1", STALE | {"scorers": 1})]))),
            (3, "delayed", (place, json.dumps([("scorers-2", STALE | {"scorers": 2})]))),
            (3, "delayed", (place, json.dumps([("scorers-1-of-3", STALE | {"scorers": 1})]))),
            (2, "command", (told, f"{of_rho} --select rho_loss --batch-size 6 --scorers 2")),
            (3, "one_model", (held_out.location,)),
            (2, "of_mixed_versions", (told, f"{of_rho} --batch-size 6")),
            (2, "command", (told, f"{il_train} --batch-size 16", f"{il_train} --batch-size 8")),
            (2, "on_a_full_disk", (told, f"{of_rho} --batch-size 6 --shard-model --name full")),
            *((2, "command", (told, arguments)) for arguments in evaluated),
        ],
    )


def ledger_of(workspace: Workspace, run: str) -> pa.Table:
    folder = f"runs/{run}/ledger"
    return pa.concat_tables([workspace.read_table(f"{folder}/{name}") for name in workspace.names(folder)])


def require_same_run(workspace: Workspace, name: str, expected: str) -> None:
    """The ledger of one is that of the other, and so are the weights, but for rounding."""
    one, other = ledger_of(workspace, expected), ledger_of(workspace, name)
    for column in one.column_names:
        if column != "run":
            values = one[column].to_pylist()
            rounded = column in ("loss", "score", "weight")
            assert other[column].to_pylist() == (pytest.approx(values, abs=1e-4) if rounded else values), column
    weights, others = (load(workspace.read_bytes(f"runs/{run}/model.safetensors")) for run in (expected, name))
    assert weights.keys() == others.keys()
    for parameter, value in weights.items():
        torch.testing.assert_close(others[parameter], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", RUNS)
def test_any_number_of_processes_makes_the_same_run(workspace, jobs, name):
    alone = train(workspace, replace(CONFIG, name=name, **RUNS[name]))
    for ranks, of_ranks in zip((2, 3), jobs, strict=False):
        if ranks == 3 and name not in ("plain", "sharded"):
            continue
        require_same_run(workspace, f"{name}-{ranks}", name)
        metrics = of_ranks[0][list(RUNS).index(name)]
        assert [line["step"] for line in metrics] == [3, 6, 8]
        for line, expected in zip(metrics, alone.metrics, strict=True):
            for measured in (
                "candidates",
                "selected",
                "train_loss",
                "test_loss",
                "test_accuracy",
                "test_mcc",
                "flops_train",
            ):
                assert line[measured] == pytest.approx(expected[measured], rel=1e-3), measured


def test_a_run_goes_on_under_another_number_of_processes(workspace, jobs):
    folder = "runs/elastic/checkpoints"
    assert workspace.names(folder) == ["last.pt", "parts-000000006"]  # of three processes that share the model out
    assert workspace.names(f"{folder}/parts-000000006") == [*(f"0000{rank}.safetensors" for rank in range(3)), PARTS]
    workspace.write_bytes(f"{folder}/parts-000000007/00000.safetensors", b"")  # of a job that was killed as it wrote
    train(workspace, replace(CONFIG, name="elastic", **ELASTIC))
    assert workspace.names(folder) == ["last.pt"]
    train(workspace, replace(CONFIG, name="whole", **ELASTIC))
    require_same_run(workspace, "elastic", "whole")


@pytest.mark.parametrize("file", ["00001.safetensors", PARTS])
def test_a_damaged_part_of_a_checkpoint_is_told_of(workspace, jobs, file):
    (parts,) = (name for name in workspace.names("runs/sharded-3/checkpoints") if name.startswith("parts-"))
    name = f"runs/sharded-3/checkpoints/{parts}/{file}"
    content = workspace.read_bytes(name)
    workspace.write_bytes(name, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WorkspaceError, match=f"{file} is no readable part of a checkpoint.*--overwrite"):
        train(workspace, replace(CONFIG, name="sharded-3", steps=10, **RUNS["sharded"]))
    workspace.remove(name)
    with pytest.raises(WorkspaceError, match=r"is no readable part of a checkpoint \(is missing\)"):
        train(workspace, replace(CONFIG, name="sharded-3", steps=10, **RUNS["sharded"]))
    workspace.write_bytes(name, content)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (4, "batch_size 5 is not a multiple of the 2 ranks that share it out: give 4, or another multiple"),
        (5, "settings differ between the ranks: batch_size is 6 on rank 0 and 4 on rank 1"),
        (6, "settings differ between the ranks: workspace is "),
        (7, "corpus.json"),
        (12, "scorers 2 of 2 processes: at least one must learn; start more, or ask for fewer scorers"),
        (14, "versions differ between the ranks: rhostream is "),
        (15, "settings differ between the ranks: batch_size is 16 on rank 0 and 8 on rank 1"),
        (16, "File too large"),
        (17, "test-000000.tar row 29, key 's109': "),
        (18, "test-000000.tar row 29, key 's109': "),
    ],
)
def test_what_a_job_cannot_do_is_told_by_one_process(jobs, number, said):
    lines = [line for told, _ in jobs[number] for line in told]
    assert len(lines) == 1
    assert said in lines[0]
    assert all(code in (1, 2) for _, code in jobs[number])


def test_processes_train_the_models_of_folds_as_one_does(folded, jobs, tmp_path):
    alone = folded_workspace(tmp_path / "w")
    folds(alone.location)
    names = [name for name in alone.names("il/mlp") if name.endswith(".safetensors")]
    assert len(names) == 4  # weights and corrections
    for name in names:
        assert folded.read_bytes(f"il/mlp/{name}") == alone.read_bytes(f"il/mlp/{name}")
    assert jobs[8] == [None, None]


def test_processes_train_one_model_as_one_does(held_out, jobs, tmp_path):
    alone = write_shapes(tmp_path / "w", splits={"train": 60, "holdout": 102})
    losses = one_model(alone.location)
    assert len(losses) > 3
    for found in jobs[13]:
        assert found == pytest.approx(losses, rel=1e-4)
    weights, others = (load(place.read_bytes("il/mlp/model.safetensors")) for place in (alone, held_out))
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, rtol=1e-3, atol=1e-4)


def test_scorers_write_the_ledger_of_one_process_byte_for_byte(workspace, jobs):
    train(workspace, replace(CONFIG, name="stale", **STALE))
    alone = ledger_of(workspace, "stale").drop_columns(["run"])
    fresh = ledger_of(workspace, "plain-2")
    assert alone["score"].to_pylist() != pytest.approx(fresh["score"].to_pylist(), abs=1e-4)
    for run in ("scorers-1", "scorers-2"):
        assert ledger_of(workspace, run).drop_columns(["run"]).equals(alone)
        weights = [workspace.read_bytes(f"runs/{name}/model.safetensors") for name in (run, "stale")]
        assert weights[0] == weights[1]
    require_same_run(workspace, "scorers-1-of-3", "stale")
