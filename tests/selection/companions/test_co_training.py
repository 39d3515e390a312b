"""A proxy that scores in the learner's place, and a live IL model: both trained along in a foreign trainer's loop."""

import copy
import io
import math

import pytest
import safetensors.torch
import torch
from helpers.tiny import il_of, write_il, write_workspace
from torch import nn

from rhostream import ConfigError
from rhostream.loaders.storage.workspace import Workspace
from rhostream.loaders.stream.candidate_stream import CandidateStream
from rhostream.selection import Ledger, LiveIL, OnlineSelector, ProxyScorer, ScoringOptions


def small(seed: int = 0, width: int = 4) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, width, 3),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(width * 36, 3),
    )


def learner() -> nn.Sequential:
    torch.manual_seed(9)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """150 samples and an IL table by a model of the architecture `small`."""
    made = write_workspace(tmp_path / "w", (60, 60, 30))
    write_il(made)
    weights = safetensors.torch.save(small(5).state_dict())
    made.write_bytes("il/strided_cnn/model.safetensors", weights)
    corpus = made.read_json("il/strided_cnn/model.json")
    corpus |= {"architecture": "small", "models": [{"file": "model.safetensors"}]}
    made.write_json("il/strided_cnn/model.json", corpus)
    return made


def losses(logits: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """Cross-entropies in plain Python."""
    found = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        found.append(math.log(math.fsum(math.exp(z) for z in row)) - row[label])
    return found


def step_of(model: nn.Module, optimizer: torch.optim.Optimizer, batch) -> None:
    nn.functional.cross_entropy(model(batch.images), batch.labels).backward()
    optimizer.step()
    optimizer.zero_grad()


def foreign(workspace: Workspace) -> CandidateStream:
    """The stream with the IL table as a Parquet file, which does not ask who made it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = f"{workspace.root}/il.parquet"
    pq.write_table(pa.table({"key": [f"s{i}" for i in range(150)], "il": [il_of(i) for i in range(150)]}), path)
    return CandidateStream(workspace, il=path, super_batch_size=50)


def test_the_proxy_scores_for_the_learner_and_learns_its_batches(workspace):
    proxy, model = small(), learner()
    by_hand = copy.deepcopy(proxy).train()
    by_hand[3].p = proxy[3].p = 0.0  # so that a plain loop draws the same
    by_hand_optimizer = torch.optim.AdamW(by_hand.parameters())
    scorer = ProxyScorer(proxy, workspace, il="strided_cnn")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    selector = OnlineSelector(model, batch_size=5, scorer=scorer)
    batches = 0
    for batch in selector(foreign(workspace)):
        candidates = batch.super_batch
        statistics = copy.deepcopy(by_hand)  # in training mode: BatchNorm by the candidates' statistics
        with torch.no_grad():
            logits = statistics(candidates.spec.normalize(candidates.images))
        scores = [a - b for a, b in zip(losses(logits, candidates.labels), candidates.il.tolist(), strict=True)]
        best = sorted(range(50), key=lambda i: -scores[i])[:5]
        assert sorted(batch.keys) == sorted(candidates.keys[i] for i in best)
        step_of(model, optimizer, batch)
        scorer.update(batch)
        step_of(by_hand, by_hand_optimizer, batch)
        for mine, theirs in zip(proxy.state_dict().values(), by_hand.state_dict().values(), strict=True):
            assert torch.allclose(mine, theirs, atol=1e-6)
        batches += 1
    assert batches == 3


def test_the_proxys_updates_leave_learner_and_random_numbers_alone(workspace):
    model = learner()
    scorer = ProxyScorer(small(), workspace, il="strided_cnn")
    batch = next(OnlineSelector(model, batch_size=8, scorer=scorer)(foreign(workspace)))
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    scorer.update(batch)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_proxy_continues_from_a_checkpoint_as_if_never_interrupted(workspace):
    options = ScoringOptions(size=8)
    whole = ProxyScorer(small(), workspace, il="strided_cnn", options=options, seed=3)
    batches = list(OnlineSelector(learner(), batch_size=8, select="uniform")(foreign(workspace)))
    for batch in batches:
        whole.update(batch)
    first = ProxyScorer(small(), workspace, il="strided_cnn", options=options, seed=3)
    for batch in batches[:2]:
        first.update(batch)
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    resumed = ProxyScorer(small(77), workspace, il="strided_cnn", options=options, seed=3)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    resumed.update(batches[2])
    for mine, theirs in zip(resumed.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_proxy_unlike_the_il_models_architecture_is_refused(workspace):
    with pytest.raises(
        ConfigError,
        match=r"not of the architecture of IL model 'strided_cnn', small \(7 tensors differ: "
        r"0\.bias is \(8,\), there \(4,\)\)",
    ):
        ProxyScorer(small(width=8), workspace, il="strided_cnn")
    with pytest.raises(ConfigError, match="build the proxy as small"):
        ProxyScorer(learner(), workspace, il="strided_cnn")
    with pytest.raises(ConfigError, match=r"IL table 'il\.parquet'.*which would tell its architecture"):
        ProxyScorer(small(), workspace, il="il.parquet")


def test_live_il_is_current_and_updates_at_a_hundredths_rate(workspace):
    il_model, model = small(5).eval(), learner()
    il_model[3].p = 0.0
    by_hand = copy.deepcopy(il_model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    live = LiveIL(il_model, optimizer)
    by_hand_optimizer = torch.optim.AdamW(by_hand.parameters(), lr=0.0005)
    ledger = Ledger(workspace, "original")
    selector = OnlineSelector(model, batch_size=5, live_il=live, ledger=ledger)
    for number, batch in enumerate(selector(CandidateStream(workspace, super_batch_size=50))):
        candidates = batch.super_batch
        with torch.no_grad():
            logits = by_hand.eval()(candidates.spec.normalize(candidates.images))
        assert candidates.il.tolist() == pytest.approx(losses(logits, candidates.labels), abs=1e-5)
        step_of(model, optimizer, batch)
        live.update(batch)
        step_of(by_hand.train(), by_hand_optimizer, batch)
        optimizer.param_groups[0]["lr"] = 0.05 / (number + 2)  # a schedule
        by_hand_optimizer.param_groups[0]["lr"] = 0.0005 / (number + 2)
    ledger.flush()
    rows = workspace.read_table("runs/original/ledger/000000001-rank0.parquet").to_pylist()
    assert len(rows) == 150
    assert all(row["score"] == pytest.approx(row["loss"] - row["il"], abs=1e-5) for row in rows)


@pytest.mark.slow
def test_live_il_of_what_was_trained_on_falls(workspace):
    il_model, model = small(5), learner()
    il_model[3].p = 0.0
    live = LiveIL(il_model, torch.optim.SGD(model.parameters(), lr=1.0))
    batch = next(OnlineSelector(model, batch_size=16, select="uniform")(CandidateStream(workspace)))
    trained = [batch.super_batch.keys.index(key) for key in batch.keys]
    before = live.il(batch.super_batch)
    for _ in range(20):
        live.update(batch)
    after = live.il(batch.super_batch)
    assert float(after[trained].mean()) < 0.8 * float(before[trained].mean())


def test_live_il_continues_from_a_checkpoint_as_if_never_interrupted(workspace):
    optimizer = torch.optim.SGD(learner().parameters(), lr=0.1)
    batches = list(
        OnlineSelector(learner(), batch_size=8, select="uniform")(CandidateStream(workspace, super_batch_size=50))
    )
    whole, first, resumed = LiveIL(small(5), optimizer), LiveIL(small(5), optimizer), LiveIL(small(6), optimizer)
    for batch in batches:
        whole.update(batch)
    for batch in batches[:2]:
        first.update(batch)
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    resumed.update(batches[2])
    for mine, theirs in zip(resumed.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_live_il_at_no_rate_is_refused():
    with pytest.raises(ConfigError, match="give a share above 0"):
        LiveIL(small(), torch.optim.SGD(learner().parameters(), lr=0.1), share=0.0)
