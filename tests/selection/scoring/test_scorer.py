"""The scoring pass in its variants: dropout draws, precision, layout, compiled, shrunk; and remembered losses."""

import math

import numpy as np
import pytest
import torch
import torch._inductor.config
from PIL import Image
from torch import nn

from rhostream import ConfigError
from rhostream.selection import ScoreCache, ScoredCandidates, Scorer, ScoringOptions, selection_function


@pytest.fixture(autouse=True)
def one_thread():
    """These models are too small to share out: on a busy machine the threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(32, 4),
    ).train()


def images(n: int = 12, side: int = 16) -> torch.Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_each_draw_drops_units_at_their_rate_and_rescales():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.25), nn.Linear(8, 8, bias=False)).eval()
    with torch.no_grad():
        model[2].weight.copy_(torch.eye(8))
    given = torch.rand(40, 8, 1, 1) + 1
    draws = Scorer(model).draws(given, k=30)
    assert (draws.shape, draws.dtype) == ((30, 40, 8), torch.float32)
    kept = draws != 0
    assert torch.allclose(draws[kept], (given.flatten(1) / 0.75).expand(30, 40, 8)[kept])
    spread = 6 * math.sqrt(0.25 * 0.75 / draws.numel())
    assert float(kept.float().mean()) == pytest.approx(0.75, abs=spread)
    assert len({tuple(mask.flatten().tolist()) for mask in kept}) == 30


def test_draws_use_the_batchnorm_policy_of_the_scoring_pass():
    model, given = network(), 3 * images() + 1
    model[5].p = 1e-9  # so that the draws are the scoring pass
    for policy in ("batch", "eval"):
        scorer = Scorer(model, ScoringOptions(batchnorm=policy))
        assert torch.allclose(scorer.draws(given, k=2), scorer.logits(given).expand(2, 12, 4), atol=1e-5)


def test_draws_leave_model_flags_buffers_and_random_numbers_alone():
    model = network()
    model[5].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    assert not Scorer(model).draws(images(), k=2).requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_depend_on_the_seed_and_number_of_calls():
    model, given = network(), images()
    scorer = Scorer(model, seed=5)
    first, second = scorer.draws(given, k=3), scorer.draws(given, k=3)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    torch.manual_seed(123)  # whatever training has drawn meanwhile
    again = Scorer(model, seed=5)
    assert torch.equal(again.draws(given, k=3), first)
    resumed = Scorer(model, seed=5)
    resumed.load_state_dict(again.state_dict())
    assert torch.equal(resumed.draws(given, k=3), second)
    assert not torch.equal(Scorer(model, seed=6).draws(given, k=3), first)


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.Dropout(0.0)])
def test_a_model_without_dropout_has_no_draws(layer):
    with pytest.raises(ConfigError, match="Sequential has no dropout module with p above 0"):
        Scorer(nn.Sequential(nn.Linear(2, 2), layer)).draws(torch.zeros(2, 2))


def test_bald_is_higher_where_a_models_draws_disagree():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    points = torch.cat([torch.randn(100, 2) + 3, torch.randn(100, 2) - 3])
    labels = torch.arange(200) // 100
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(points), labels).backward()
        optimizer.step()
    probes = torch.tensor([[3.0, 3.0], [0.0, 0.0]])  # amid a class, and on the border
    draws = Scorer(model).draws(probes, k=50)
    score = selection_function("bald").score
    assert score is not None
    inside, border = score(ScoredCandidates(labels=torch.tensor([0, 0]), draws=draws)).tolist()
    assert border > 10 * inside


@pytest.mark.parametrize(
    "options",
    [
        ScoringOptions(precision="bfloat16"),
        ScoringOptions(precision="float16"),
        ScoringOptions(channels_last=True),
        ScoringOptions(channels_last=True, precision="bfloat16", batchnorm="eval"),
    ],
)
def test_faster_passes_score_nearly_alike_and_training_continues_unchanged(options):
    model = network()
    plain = Scorer(model, ScoringOptions(batchnorm=options.batchnorm)).logits(images())
    found = Scorer(model, options).logits(images())
    assert found.dtype == torch.float32
    assert torch.allclose(found, plain, atol=1e-5 if options.precision == "float32" else 0.03)
    assert (options.precision == "float32") == torch.allclose(found, plain, atol=1e-6)
    model(images()).sum().backward()
    assert all(parameter.grad is not None and parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_autocast_of_the_trainer_keeps_no_inference_weights(precision):
    model = network()
    with torch.autocast("cpu", torch.bfloat16):
        Scorer(model, ScoringOptions(precision=precision)).logits(images())
        model(images()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_smaller_size_scores_the_antialiased_images():
    seen = []

    class Seeing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, given: torch.Tensor) -> torch.Tensor:
            seen.append(given)
            return given.mean((2, 3))

    given = images(2, 32)
    Scorer(Seeing(), ScoringOptions(size=12)).logits(given)
    Scorer(Seeing(), ScoringOptions(size=64)).logits(given)  # never enlarged
    assert [tuple(each.shape) for each in seen] == [(2, 3, 12, 12), (2, 3, 32, 32)]
    for number in range(2):  # Pillow's bilinear filter widens with the scale, too
        for channel in range(3):
            plane = Image.fromarray(given[number, channel].numpy())
            expected = np.asarray(plane.resize((12, 12), Image.Resampling.BILINEAR))
            np.testing.assert_allclose(seen[0][number, channel].numpy(), expected, atol=1e-4)


def test_a_model_of_one_size_refuses_smaller_thumbnails_plainly():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    with pytest.raises(ConfigError, match=r"scoring size 8: the model takes no images of it .*leave size out"):
        Scorer(flat, ScoringOptions(size=8)).logits(images())


@pytest.mark.parametrize(
    ("option", "value"), [("precision", "float8"), ("batchnorm", "train"), ("size", 0), ("size", -3)]
)
def test_an_unknown_option_is_refused(option, value):
    with pytest.raises(ConfigError, match=f"scoring {option} "):
        ScoringOptions(**{option: value})


@pytest.mark.slow
# Threads and headers pay for many kernels, vectors for large ones; here they take seconds of the C++ compiler.
@torch._inductor.config.patch({"compile_threads": 1, "cpp_cache_precompile_headers": False, "cpp.simdlen": 0})
def test_a_compiled_pass_scores_alike_and_compiles_only_scoring():
    model = network()
    plain = Scorer(model).logits(images())
    scorer = Scorer(model, ScoringOptions(compile=True))
    assert torch.allclose(scorer.logits(images()), plain, atol=1e-5)
    assert scorer.model is model
    with torch.no_grad():
        model[6].bias += 1  # the weights are read at each pass
    assert torch.allclose(scorer.logits(images()), plain + 1, atol=1e-5)
    assert int(model[1].num_batches_tracked) == 0
    assert scorer.draws(images(), k=2).shape == (2, 12, 4)


@pytest.mark.slow
def test_a_missing_compiler_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "/nonexistent/g++"))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    with pytest.raises(ConfigError, match=r"torch.compile has no compiler .*/nonexistent/g\+\+.*or leave compile out"):
        Scorer(nn.Sequential(nn.Linear(3, 5), nn.Tanh()), ScoringOptions(compile=True)).logits(torch.randn(4, 3))


def test_the_cache_serves_young_losses_and_requests_the_rest():
    cache = ScoreCache(max_age=3)
    cache.remember(["a", "b"], torch.tensor([1.0, 2.0]), step=10)
    cache.remember(["c"], torch.tensor([3.0]), step=11)
    split = cache.split(["x", "b", "c", "a"], step=12)
    assert (split.fresh.tolist(), split.known.tolist()) == ([0], [1, 2, 3])
    assert split.merged(torch.tensor([9.0])).tolist() == [9.0, 2.0, 3.0, 1.0]
    split = cache.split(["x", "b", "c", "a"], step=13)
    assert (split.fresh.tolist(), split.losses.tolist()) == ([0, 1, 3], [3.0])
    nobody = ScoreCache(max_age=1).split([], step=1)
    assert nobody.merged(torch.empty(0)).tolist() == []


def test_the_cache_forgets_what_is_too_old_or_too_much():
    cache = ScoreCache(max_age=4, capacity=5)
    for step in range(1, 20):
        cache.remember([f"{step}-{i}" for i in range(2)], torch.zeros(2), step)
        assert len(cache) <= 5
    assert cache.split([f"{step}-1" for step in range(16, 20)], step=19).known.tolist() == [1, 2, 3]
    unbounded = ScoreCache(max_age=4)
    for step in range(1, 20):
        unbounded.remember([f"{step}-{i}" for i in range(2)], torch.zeros(2), step)
    assert len(unbounded) == 4 * 2
    unbounded.remember(["19-0"], torch.ones(1), 20)  # seen again: the new loss, and no second entry
    assert unbounded.split(["19-0"], 20).losses.tolist() == [1.0]
    assert len(unbounded) == 3 * 2


def test_the_cache_goes_on_from_its_state():
    cache = ScoreCache(max_age=5)
    cache.remember(["a", "b"], torch.tensor([0.1, 0.2]), step=1)
    cache.remember(["c"], torch.tensor([0.3]), step=3)
    resumed = ScoreCache(max_age=5)
    resumed.load_state_dict(cache.state_dict())
    for step in (4, 6):
        mine, theirs = cache.split(["a", "b", "c", "d"], step), resumed.split(["a", "b", "c", "d"], step)
        assert mine.fresh.tolist() == theirs.fresh.tolist()
        assert torch.equal(mine.losses, theirs.losses)
