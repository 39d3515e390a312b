"""Selection via proxy: the core set is what the proxy is least certain of, and the target trains on it alone."""

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.corpus_fixture import write_shapes
from helpers.made_once import made_once
from helpers.shards_corpus import contents
from helpers.tiny import another_split, rewrite_shard
from torch import nn

from rhostream import ConfigError, WorkspaceError
from rhostream.cli.main import rho
from rhostream.loaders.index.core_set import CoreSet
from rhostream.loaders.index.corpus_metadata import CorpusMetadata, read_shard_rows
from rhostream.loaders.storage.workspace import Workspace
from rhostream.loaders.stream.candidate_stream import CandidateStream
from rhostream.loaders.stream.order import Order
from rhostream.pipeline.config.core_set_config import CoreSetConfig
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.il.core_set import highest, write_core_set
from rhostream.pipeline.il.metadata import ILMetadata
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.sql.database import query
from rhostream.selection import Ledger, OnlineSelector


@made_once
def prepare(folder: Path) -> Workspace:
    """A corpus of 150 training samples in two folds, each scored by the model that never saw its fold."""
    workspace = write_shapes(folder, splits={"train": 150}, folds=2, shard_rows=40)
    train_il(workspace, ILTrainConfig(model="strided_cnn", steps=2, cross_fit=0, device="cpu"))
    score_il(workspace, ILScoreConfig(device="cpu"))
    return workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return prepare(tmp_path / "w")


def entropies(workspace: Workspace) -> dict[str, float]:
    """Of every training sample, by key, in plain Python, under the model that did not see it."""
    metadata, corpus, found = ILMetadata.read(workspace, "strided_cnn"), CorpusMetadata.read(workspace), {}
    for shard in corpus.split("train"):
        model = metadata.load(workspace, metadata.weights_for(shard))
        for batch in CandidateStream(workspace, shards=(shard,), super_batch_size=50):
            with torch.no_grad():
                logits = model(batch.spec.normalize(batch.images)).double()
            for key, row in zip(batch.keys, logits.tolist(), strict=True):
                total = math.fsum(math.exp(z) for z in row)
                found[key] = -math.fsum(math.exp(z) / total * (z - math.log(total)) for z in row)
    return found


def test_the_il_table_holds_the_entropy_of_the_scoring_model(workspace):
    expected, found = entropies(workspace), {}
    for shard in CorpusMetadata.read(workspace).split("train"):
        table = workspace.read_table(shard.scores("strided_cnn"), ["key", "entropy"])
        found |= dict(zip(table["key"].to_pylist(), table["entropy"].to_pylist(), strict=True))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-4)


def test_the_core_set_is_the_least_certain_and_alone_trains(workspace):
    summary = write_core_set(workspace, CoreSetConfig(keep=0.2))
    assert (summary.samples, summary.kept, summary.already_made) == (150, 30, False)
    by_entropy = sorted(entropies(workspace).items(), key=lambda item: -item[1])
    kept, left = {key for key, _ in by_entropy[:30]}, {key for key, _ in by_entropy[30:]}
    assert summary.least_entropy == pytest.approx(by_entropy[29][1], abs=1e-4)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 20, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    ledger = Ledger(workspace, "svp")
    selector = OnlineSelector(model, batch_size=8, select="uniform", ledger=ledger)
    trained: list[str] = []
    for batch in selector(CandidateStream(workspace, core_set="svp", super_batch_size=40, order=Order(last="keep"))):
        nn.functional.cross_entropy(model(batch.images), batch.labels).backward()
        optimizer.step()
        trained += batch.keys
        assert set(batch.super_batch.passed_over.reasons) == {"not_in_core_set"}
        assert set(batch.super_batch.passed_over.keys) <= left
    ledger.flush()
    assert len(trained) == len(set(trained)) >= 20
    assert set(trained) <= kept
    rows = query(workspace, "SELECT reason, count(*) AS n FROM ledger WHERE NOT selected GROUP BY reason").to_pylist()
    assert {row["reason"]: row["n"] for row in rows}["not_in_core_set"] == 120
    table = query(workspace, "SELECT key FROM core_sets WHERE core_set = 'svp' AND kept").to_pylist()
    assert {row["key"] for row in table} == kept


def test_what_is_not_in_the_core_set_is_never_read(workspace):
    write_core_set(workspace, CoreSetConfig(keep=0.1))
    corpus = CorpusMetadata.read(workspace)
    core_set = CoreSet.read(workspace, corpus, "svp")
    for shard in corpus.split("train"):
        rows = read_shard_rows(workspace, shard)
        content = bytearray(workspace.read_bytes(shard.tar))
        for row in np.flatnonzero(~core_set.kept(rows)):
            start, size = int(rows.offsets[row]), int(rows.sizes[row])
            content[start : start + size] = bytes(size)
        workspace.write_bytes(shard.tar, bytes(content))
    keys = [key for batch in CandidateStream(workspace, core_set="svp", super_batch_size=50) for key in batch.keys]
    assert len(keys) == 15


def test_a_core_set_and_an_il_table_serve_together(workspace):
    write_core_set(workspace, CoreSetConfig(keep=0.5))
    stream = CandidateStream(workspace, il="strided_cnn", core_set="svp", super_batch_size=50)
    batches = list(stream)
    assert sum(len(batch) for batch in batches) == 75
    assert all(batch.il is not None and len(batch.il) == len(batch) for batch in batches)


def kept(values, share):
    """Which of them `highest` would keep, given to it in three parts."""
    parts = np.array_split(values, 3)
    least, taken = highest(share, lambda: iter(parts), lambda: iter(parts))
    ties = [np.flatnonzero(part == least)[:count] for part, count in zip(parts, taken, strict=True)]
    chosen = [(part > least) | np.isin(np.arange(len(part)), tie) for part, tie in zip(parts, ties, strict=True)]
    return np.concatenate(chosen).tolist()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.93])
def test_what_is_kept_is_what_sorting_all_values_would_keep(share):
    values = np.random.default_rng(3).normal(size=500).astype(np.float32).round(1)
    first = np.sort(np.argsort(-values, kind="stable")[: round(share * 500)])
    assert np.flatnonzero(kept(values, share)).tolist() == first.tolist()


def test_ties_go_to_the_first_and_one_remains():
    values = np.array([1.0, 3.0, 2.0, 3.0, 3.0, 0.0], np.float32)
    assert kept(values, 1 / 3) == [False, True, False, True, False, False]
    assert all(kept(values, 1.0))
    assert kept(values, 1e-6) == [False, True, False, False, False, False]


def test_the_same_command_finds_its_core_set_others_are_refused(workspace):
    run = CliRunner().invoke(rho, ["coreset", "--workspace", workspace.location, "--json"], catch_exceptions=False)
    assert json.loads(run.stdout)["kept"] == 15
    before = {file: file.read_bytes() for file in (Path(workspace.root) / "core_sets").rglob("*") if file.is_file()}
    assert write_core_set(workspace, CoreSetConfig()).already_made
    with pytest.raises(WorkspaceError, match=r"made with other settings \(keep 0.1, asked for 0.4\).*--overwrite"):
        write_core_set(workspace, CoreSetConfig(keep=0.4))
    assert write_core_set(workspace, CoreSetConfig(keep=0.4), overwrite=True).kept == 60
    write_core_set(workspace, CoreSetConfig(), overwrite=True)
    assert {file: file.read_bytes() for file in before} == before


def test_static_jobs_make_the_core_set_of_one_process(workspace, monkeypatch):
    config = CoreSetConfig(keep=0.3, workers=0)
    alone, made = write_core_set(workspace, config), Path(workspace.root) / "core_sets"
    expected = contents(made)
    shutil.rmtree(made)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    command = ["coreset", "--workspace", workspace.location, "--keep", "0.3", "--engine", "static", "--json"]
    first = CliRunner().invoke(rho, command, catch_exceptions=False)
    assert json.loads(first.stdout) == {"complete": False}
    assert 1 < len(expected) - len(contents(made)) < len(expected)
    monkeypatch.setenv("RANK", "0")
    assert write_core_set(workspace, replace(config, engine="static")) == alone
    assert contents(made) == expected
    with pytest.raises(ConfigError, match="--overwrite with --engine static"):
        write_core_set(workspace, replace(config, engine="static"), overwrite=True)


def test_a_core_set_of_other_shards_is_refused(workspace):
    write_core_set(workspace, CoreSetConfig())
    with pytest.raises(
        WorkspaceError, match=r"core set 'mine'.*core sets there: svp.*choose the core set \(name mine\)"
    ):
        CandidateStream(workspace, core_set="mine")
    rewrite_shard(workspace, "train-000001", "another")
    with pytest.raises(WorkspaceError, match=r"train-000001.parquet was made of other samples.*choose the core set"):
        list(CandidateStream(workspace, core_set="svp"))
    another_split(workspace)
    with pytest.raises(WorkspaceError, match="core set 'svp' is of another split"):
        CandidateStream(workspace, core_set="svp")


def test_parts_of_a_killed_rewrite_are_no_new_core_set(workspace):
    write_core_set(workspace, CoreSetConfig(keep=0.4))
    old = workspace.read_bytes("core_sets/svp/rows/train-000000.parquet")
    write_core_set(workspace, CoreSetConfig(keep=0.1), overwrite=True)
    workspace.write_bytes("core_sets/svp/rows/train-000000.parquet", old)
    with pytest.raises(WorkspaceError, match="or for another core set"):
        list(CandidateStream(workspace, core_set="svp"))


@pytest.mark.parametrize(("option", "value"), [("keep", 0.0), ("keep", 1.5), ("name", "../out"), ("name", ".a")])
def test_settings_that_cannot_be_are_refused(option, value):
    with pytest.raises(ConfigError, match=re.escape(str(value))):
        CoreSetConfig(**{option: value})
