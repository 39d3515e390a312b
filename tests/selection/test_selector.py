"""Selection functions against independent computations; the scoring pass leaves no trace (invariant 8)."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import write_il, write_workspace
from torch import nn
from torch.utils.data import DataLoader

from rhostream import ConfigError, RhostreamError
from rhostream.loaders.stream import Batch
from rhostream.loaders.stream.candidate_stream import CandidateStream
from rhostream.loaders.stream.order import Order
from rhostream.schema import LEDGER
from rhostream.selection import (
    Classification,
    Ledger,
    OnlineSelector,
    ScoredCandidates,
    Scorer,
    ScoringOptions,
    register,
    scoring_mode,
    selection_function,
)
from rhostream.selection.scoring.functions import _FUNCTIONS

LABELS = torch.tensor([0, 2, 1, 1])
LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5], [-3.0, 1.0, 4.0], [0.0, 9.0, 0.0]])
IL = torch.tensor([0.1, 1.0, 2.5, 0.0])


def probabilities() -> list[list[float]]:
    rows = []
    for row in LOGITS.tolist():
        total = math.fsum(math.exp(z) for z in row)
        rows.append([math.exp(z) / total for z in row])
    return rows


def score(name: str) -> list[float]:
    function = selection_function(name).score
    assert function is not None
    losses = Classification().losses(LOGITS, Batch(fields={}, labels=LABELS))
    return function(ScoredCandidates(labels=LABELS, il=IL, losses=losses, logits=LOGITS)).tolist()


def test_train_loss_is_the_negative_log_likelihood_in_nats():
    expected = [-math.log(p[y]) for p, y in zip(probabilities(), LABELS.tolist(), strict=True)]
    assert score("train_loss") == pytest.approx(expected, abs=1e-6)


def test_rho_loss_is_the_loss_minus_the_irreducible_loss():
    losses = [-math.log(p[y]) for p, y in zip(probabilities(), LABELS.tolist(), strict=True)]
    expected = [loss - il for loss, il in zip(losses, IL.tolist(), strict=True)]
    assert score("rho_loss") == pytest.approx(expected, abs=1e-6)


def test_irreducible_loss_prefers_low_il_without_a_scoring_pass():
    assert score("irreducible_loss") == pytest.approx([-il for il in IL.tolist()])
    assert selection_function("irreducible_loss").needs == {"il"}


def test_grad_norm_is_the_gradient_norm_at_the_logits():
    logits = LOGITS.clone().requires_grad_()
    nn.functional.cross_entropy(logits, LABELS, reduction="sum").backward()
    assert logits.grad is not None
    assert score("grad_norm") == pytest.approx(logits.grad.norm(dim=1).tolist(), abs=1e-6)


def test_an_unknown_function_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"'rho_los': known are .*rho_loss.*uniform"):
        selection_function("rho_los")


@pytest.fixture
def workspace(tmp_path):
    made = write_workspace(tmp_path / "w", (60, 60, 30))
    write_il(made)
    return made


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 3)
    )


def test_the_scoring_pass_leaves_model_gradients_and_random_numbers_untouched():
    model = network().train()
    images = torch.randn(20, 3, 8, 8)
    model(images).sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    random_state = torch.get_rng_state()
    logits = Scorer(model).logits(images)
    assert not logits.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(module.training for module in model.modules())
    assert all(module.track_running_stats for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def test_training_flags_return_even_if_scoring_fails():
    model = network().train()
    model[4].eval()
    with pytest.raises(RuntimeError), scoring_mode(model):
        model(torch.randn(2, 5, 8, 8))
    assert [module.training for module in model] == [True, True, True, True, False, True]
    assert model[1].track_running_stats


def test_batchnorm_scores_by_candidates_or_running_statistics():
    model = network()
    images = torch.randn(50, 3, 8, 8) * 3 + 1
    features = model[0](images)
    by_hand = (features - features.mean((0, 2, 3), keepdim=True)) / torch.sqrt(
        features.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5
    )
    expected = model[5](by_hand.relu().flatten(1))
    assert torch.allclose(Scorer(model, ScoringOptions(batchnorm="batch")).logits(images), expected, atol=1e-4)
    model.eval()
    with torch.no_grad():
        assert torch.allclose(Scorer(model, ScoringOptions(batchnorm="eval")).logits(images), model(images), atol=1e-5)


def test_the_selector_takes_the_highest_scores_of_every_super_batch(workspace):
    model = network()
    stream = CandidateStream(workspace, il="strided_cnn", super_batch_size=50)
    for batch in OnlineSelector(model, batch_size=5)(stream):
        candidates = batch.super_batch
        logits = Scorer(model).logits(candidates.spec.normalize(candidates.images))
        losses = -logits.log_softmax(1)[torch.arange(len(candidates)), candidates.labels]
        scores = (losses - candidates.il).numpy()
        best = np.argsort(-scores, kind="stable")[:5]
        assert sorted(batch.keys) == sorted(candidates.keys[i] for i in best)
        at = [candidates.keys.index(key) for key in batch.keys]
        assert torch.equal(batch.images, candidates.spec.normalize(candidates.images)[at])
        assert torch.equal(batch.labels, candidates.labels[at])
        assert batch.weights.tolist() == [1.0] * 5


def test_a_short_super_batch_keeps_its_share(workspace):
    sizes = [
        (len(batch.super_batch), len(batch))
        for batch in OnlineSelector(network(), batch_size=8)(
            CandidateStream(workspace, il="strided_cnn", super_batch_size=40, order=Order(last="keep"))
        )
    ]
    assert sizes == [(40, 8), (40, 8), (40, 8), (30, 6)]


def test_the_ledger_has_every_candidate_once_with_its_outcome(workspace):
    model = network()
    ledger = Ledger(workspace, "trial")
    stream = CandidateStream(workspace, il="strided_cnn", super_batch_size=50)
    chosen = [
        (i + 1, key)
        for i, batch in enumerate(OnlineSelector(model, batch_size=5, ledger=ledger)(stream))
        for key in batch.keys
    ]
    ledger.flush()
    table = workspace.read_table("runs/trial/ledger/000000001-rank0.parquet")
    assert table.schema.equals(LEDGER)
    rows = table.to_pylist()
    assert sorted(row["key"] for row in rows) == sorted(f"s{n}" for n in range(150))
    assert sorted((row["step"], row["key"]) for row in rows if row["selected"]) == sorted(chosen)
    for row in rows:
        assert row["score"] == pytest.approx(row["loss"] - row["il"], abs=1e-5)
        assert row["reason"] is None
        assert row["run"] == "trial"


def test_uniform_sampling_keeps_the_order_and_scores_nothing(workspace):
    class Unscorable(nn.Linear):
        def forward(self, images):
            raise AssertionError("uniform sampling must not score")

    stream = CandidateStream(workspace, super_batch_size=10)
    selector = OnlineSelector(Unscorable(1, 1), batch_size=10, select="uniform")
    assert [batch.keys for batch in selector(stream)] == [
        batch.keys for batch in CandidateStream(workspace, super_batch_size=10)
    ]


def test_a_function_that_needs_losses_names_a_streams_lack(workspace):
    with pytest.raises(ConfigError, match="needs irreducible losses, and the stream joins none"):
        next(OnlineSelector(network())(CandidateStream(workspace)))


def test_nonfinite_scores_stop_the_run_before_any_selection(workspace):
    model = network()
    with torch.no_grad():
        model[5].bias[1] = float("nan")
    with pytest.raises(RhostreamError, match="after step 0: 150 of 150 scores are not finite"):
        next(OnlineSelector(model)(CandidateStream(workspace, il="strided_cnn")))


def test_a_function_registered_from_outside_is_known_by_name(workspace):
    @register("label_only", needs=set())
    def label_only(scored: ScoredCandidates) -> torch.Tensor:
        return scored.labels.float()

    try:
        batch = next(OnlineSelector(network(), batch_size=10, select="label_only")(CandidateStream(workspace)))
        assert set(batch.labels.tolist()) == {2}
    finally:
        del _FUNCTIONS["label_only"]


def test_a_batch_larger_than_the_super_batch_is_refused(workspace):
    stream = CandidateStream(workspace, il="strided_cnn", super_batch_size=80)
    with pytest.raises(ConfigError, match="batch_size 800 exceeds the 80 candidates of a super-batch, which leaves"):
        next(OnlineSelector(network(), batch_size=800)(stream))


@pytest.mark.parametrize("workers", [0, 1])
def test_batching_super_batches_again_is_refused_in_one_line(workspace, workers):
    batched = DataLoader(CandidateStream(workspace, super_batch_size=40), batch_size=4, num_workers=workers)
    with pytest.raises(ConfigError, match=r"DataLoader\(stream, batch_size=None\)"):
        next(OnlineSelector(network(), batch_size=8)(batched))
    with pytest.raises(ConfigError, match=r"DataLoader\(stream, batch_size=None\)"):
        next(iter(batched))


class Several(nn.Module):
    def __init__(self, *heads: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(192, classes) for classes in heads)

    def forward(self, images: torch.Tensor) -> Any:
        outputs = tuple(head(images.flatten(1)) for head in self.heads)
        return outputs if len(outputs) > 1 else outputs[0]


def test_a_model_of_several_or_too_few_outputs_is_told(workspace):
    stream = CandidateStream(workspace, il="strided_cnn", super_batch_size=40)
    with pytest.raises(ConfigError, match=r"the model gave a tuple of 2 in place of logits: say which .* forward="):
        next(OnlineSelector(Several(3, 3), batch_size=8)(stream))
    with pytest.raises(ConfigError, match=r"outputs of shape \(40, 2\) for 40 samples with labels up to 2: it must"):
        next(OnlineSelector(Several(2), batch_size=8)(stream))
    first = OnlineSelector(Several(3, 3), batch_size=8, forward=lambda model, batch: model(batch.images)[0])
    assert len(next(first(stream))) == 8


def test_the_accuracy_on_candidates_stands_beside_the_selecteds(workspace):
    batch = next(
        OnlineSelector(network(), batch_size=8)(CandidateStream(workspace, il="strided_cnn", super_batch_size=40))
    )
    assert batch.candidate_accuracy == pytest.approx(float(batch.considered[0].correct.float().mean()))
    stream = CandidateStream(workspace, super_batch_size=8)
    assert next(OnlineSelector(network(), batch_size=8, select="uniform")(stream)).candidate_accuracy is None
