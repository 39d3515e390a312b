"""The scoring pass on a GPU: it leaves no trace, and its faster variants score nearly alike."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.gpu import DEVICE, needs_compiler, needs_gpu
from helpers.tiny import write_il, write_workspace
from torch import nn

from rhostream.loaders import CandidateStream
from rhostream.selection import OnlineSelector, Scorer, ScoringOptions
from rhostream.selection.scoring.scorer import scoring_mode

pytestmark = needs_gpu

VARIANTS = [
    ScoringOptions(),
    ScoringOptions(batchnorm="eval"),
    ScoringOptions(precision="bfloat16"),
    ScoringOptions(precision="float16"),
    ScoringOptions(channels_last=True),
    ScoringOptions(size=24),
    ScoringOptions(precision="bfloat16", channels_last=True, size=24),
    pytest.param(ScoringOptions(compile=True), marks=needs_compiler),
    pytest.param(ScoringOptions(compile=True, precision="bfloat16", channels_last=True), marks=needs_compiler),
]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(128, 4),
    ).to(DEVICE)


def images(n: int = 256, side: int = 32) -> torch.Tensor:
    """Smooth, so that shrinking them changes little."""
    coarse = torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, size=(side, side), mode="bicubic").to(DEVICE)


def labels(n: int = 256) -> torch.Tensor:
    return torch.arange(n, device=DEVICE) % 4


def trained() -> nn.Module:
    """A few steps away from its initial weights, its BatchNorm's statistics among them."""
    model = network().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(10):
        F.cross_entropy(model(images()), labels()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def losses(logits: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, labels(), reduction="none")


def rank_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Spearman's."""
    ranks = torch.stack([each.argsort().argsort().double() for each in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_scoring_leaves_weights_buffers_flags_and_random_numbers_alone(options: ScoringOptions) -> None:
    model = trained()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    numbers = torch.get_rng_state(), torch.cuda.get_rng_state()
    scorer = Scorer(model, options)
    for found in (scorer.logits(images()), scorer.draws(images(), k=3)):
        assert (found.device.type, found.dtype, found.requires_grad) == (DEVICE, torch.float32, False)
        assert bool(found.isfinite().all())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), numbers[0])
    assert torch.equal(torch.cuda.get_rng_state(), numbers[1])
    F.cross_entropy(model(images()), labels()).backward()
    assert all(parameter.grad is not None and parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("options", VARIANTS[2:], ids=str)
def test_faster_passes_rank_the_candidates_as_the_plain_one_does(options: ScoringOptions) -> None:
    model = trained()
    plain = losses(Scorer(model).logits(images()))
    assert rank_correlation(plain, losses(Scorer(model, options).logits(images()))) > 0.98


def test_draws_depend_on_the_seed_and_number_of_calls() -> None:
    model = network()
    scorer = Scorer(model, seed=5)
    first, second = scorer.draws(images(), k=3), scorer.draws(images(), k=3)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    torch.manual_seed(123)  # whatever training has drawn meanwhile
    resumed = Scorer(model, seed=5)
    resumed.load_state_dict({"draw_calls": 1})
    assert torch.allclose(resumed.draws(images(), k=3), second, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_autocast_of_the_trainer_keeps_no_inference_weights(precision: str) -> None:
    model = network().train()
    with torch.autocast(DEVICE, torch.bfloat16):
        Scorer(model, ScoringOptions(precision=precision)).logits(images())  # type: ignore[arg-type]
        model(images()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("steps", [3, 40])
def test_scores_made_alongside_training_use_the_weights_before_the_step(tmp_path: Path, steps: int) -> None:
    workspace = write_workspace(tmp_path / "w", [200] * 8, side=32)
    write_il(workspace)
    model, before, common = network().train(), [copy.deepcopy(network())], 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stream = CandidateStream(workspace, il="strided_cnn", super_batch_size=40)
    for batch in OnlineSelector(model, batch_size=10, score_ahead=True)(stream):
        candidates = batch.super_batch
        assert candidates is not None
        assert candidates.il is not None
        scorer = before[max(0, len(before) - 2)]
        with scoring_mode(scorer):
            logits = scorer(candidates.spec.normalize(candidates.images))
        reducible = F.cross_entropy(logits, candidates.labels, reduction="none") - candidates.il
        common += len({candidates.keys[at] for at in reducible.topk(10).indices.tolist()} & set(batch.keys))
        for _ in range(10):  # keeps the stream of the training busy, and its memory changing hands
            F.cross_entropy(model(batch.images), batch.labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        before.append(copy.deepcopy(model))
        if len(before) > steps:
            break
    assert len(before) == steps + 1
    assert common >= 0.97 * 10 * steps  # a GPU's rounding may change one in many
