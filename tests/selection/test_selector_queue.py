"""Batches that are filled from several super-batches, or several that come out of one."""

import io
import itertools

import pytest
import torch
from helpers.tiny import il_of, write_il, write_workspace
from torch import nn

from rhostream import ConfigError
from rhostream.loaders.reference.prefilter import Prefilter
from rhostream.loaders.stream.candidate_stream import CandidateStream
from rhostream.loaders.stream.order import Order
from rhostream.schema import LEDGER
from rhostream.selection import Ledger, OnlineSelector, ScoreCache, Scorer, SelectingLoader, SelectionConfig


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))


@pytest.fixture
def workspace(tmp_path):
    made = write_workspace(tmp_path / "w", (60, 60, 30))
    write_il(made)
    return made


def stream_of(workspace, **settings) -> CandidateStream:
    return CandidateStream(workspace, il="strided_cnn", **{"super_batch_size": 30} | settings)


def reducible(model, super_batch) -> dict[str, float]:
    """The score of every candidate, by hand."""
    log_p = Scorer(model).logits(super_batch.spec.normalize(super_batch.images)).log_softmax(1)
    losses = -log_p[torch.arange(len(super_batch)), super_batch.labels]
    return {key: float(loss) - il_of(int(key[1:])) for key, loss in zip(super_batch.keys, losses, strict=True)}


def test_a_super_batchs_share_gives_several_batches_highest_first(workspace):
    model = network()
    selector = OnlineSelector(model, select=SelectionConfig(batch_size=5, share=0.5))
    batches = list(selector(stream_of(workspace)))
    assert [len(batch) for batch in batches] == [5] * 15
    for at, super_batch in enumerate(stream_of(workspace)):
        scores = reducible(model, super_batch)
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:15]
        assert [key for batch in batches[3 * at : 3 * at + 3] for key in batch.keys] == best
        assert [len(batch.considered) for batch in batches[3 * at : 3 * at + 3]] == [1, 0, 0]


def test_a_score_floor_fills_batches_across_super_batches(workspace):
    model = network()
    per_super_batch = [reducible(model, super_batch) for super_batch in stream_of(workspace)]
    floor = sorted(score for scores in per_super_batch for score in scores.values())[-20]
    expected = [
        key
        for scores in per_super_batch
        for key in sorted(scores, key=scores.__getitem__, reverse=True)[:8]
        if scores[key] > floor
    ]
    selector = OnlineSelector(model, select=SelectionConfig(batch_size=8, score_floor=floor))
    batches = list(selector(stream_of(workspace)))
    chosen = [key for batch in batches for key in batch.keys]
    assert {len(batch) for batch in batches} == {8}
    assert chosen == expected[: len(expected) // 8 * 8]
    assert any(len(batch.considered) > 1 for batch in batches)
    # What is left over waits for the next epoch.
    left = expected[len(chosen) :]
    assert left
    assert next(selector(stream_of(workspace))).keys[: len(left)] == left


def test_prefiltered_uniform_sampling_takes_whole_batches_of_the_rest(tmp_path):
    workspace = write_workspace(tmp_path / "w", (60, 60, 30))
    write_il(workspace, predicted=0)  # so that labels 1 and 2 are ruled out where IL > ln 3
    expected = {f"s{n}" for n in range(150) if (n * 7 + n // 3) % 3 == 0 or n / 100 <= 1.0986}
    selection = SelectionConfig(function="uniform", batch_size=8, full=True)
    stream = stream_of(workspace, super_batch_size=8, prefilter=Prefilter(), order=Order(last="keep"))
    batches = list(OnlineSelector(network(), select=selection)(stream))
    assert {len(batch) for batch in batches} == {8}
    chosen = [key for batch in batches for key in batch.keys]
    assert len(chosen) == len(set(chosen)) == len(expected) // 8 * 8
    assert set(chosen) < expected


def test_a_selection_without_prefilter_has_the_stream_pass_nothing_over(tmp_path):
    workspace = write_workspace(tmp_path / "w", (60, 60, 30))
    write_il(workspace, predicted=0)
    selection = SelectionConfig(function="uniform", batch_size=30, prefilter=False)
    batches = list(OnlineSelector(network(), select=selection)(stream_of(workspace, prefilter=Prefilter())))
    assert sorted(key for batch in batches for key in batch.keys) == sorted(f"s{n}" for n in range(150))


@pytest.mark.parametrize(
    "selection",
    [
        SelectionConfig(batch_size=4, share=0.5, rule="gumbel"),
        SelectionConfig(batch_size=4, score_floor=-0.2),
        SelectionConfig(function="selective_backprop", batch_size=4),
        SelectionConfig(function="grad_norm_is", batch_size=4),
    ],
    ids=lambda selection: selection.function + (" floor" if selection.score_floor else ""),
)
@pytest.mark.parametrize("after", [1, 2, 7])
def test_a_selector_resumes_mid_super_batch_as_if_never_interrupted(workspace, selection, after):
    def batches(selector, stream):
        return ((batch, batch.keys, batch.weights.tolist()) for _ in range(9) for batch in selector(stream))

    whole = [
        found[1:]
        for found in itertools.islice(batches(OnlineSelector(network(), select=selection), stream_of(workspace)), 15)
    ]
    first = OnlineSelector(network(), select=selection)
    seen = list(itertools.islice(batches(first, stream_of(workspace)), after))
    buffer = io.BytesIO()
    torch.save({"selector": first.state_dict(), "stream": seen[-1][0].state}, buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    second, stream = OnlineSelector(network(), select=selection), stream_of(workspace)
    second.load_state_dict(state["selector"])
    stream.load_state_dict(state["stream"])
    rest = [found[1:] for found in itertools.islice(batches(second, stream), 15 - after)]
    assert [found[1:] for found in seen] + rest == whole


@pytest.mark.parametrize(
    "selection",
    [
        SelectionConfig(batch_size=4, class_floor=0.5, share=0.5),
        SelectionConfig(batch_size=4, rule="gumbel"),
        SelectionConfig(batch_size=4, score_floor=-0.2),
        SelectionConfig(function="selective_backprop", batch_size=4),
        SelectionConfig(function="grad_norm_is", batch_size=4),
        SelectionConfig(function="uniform", batch_size=4, full=True),
    ],
    ids=lambda selection: selection.label,
)
def test_torchs_default_device_moves_nothing_of_a_selectors(workspace, selection):
    model = network()

    def chosen():
        selector = OnlineSelector(model, select=selection, cache=ScoreCache(4))
        found = [batch.keys for batch in itertools.islice(selector(stream_of(workspace)), 5)]
        return found, selector.state_dict()

    expected, _ = chosen()
    with torch.device("meta"):  # in a GPU's place: tensors there have no values, and none of the CPU's go with them
        found, state = chosen()
    assert found == expected
    torch.save(state, io.BytesIO())


def test_the_ledger_tells_what_was_chosen_by_and_the_weights(workspace):
    ledger = Ledger(workspace, "r")
    selection = SelectionConfig(function="grad_norm", batch_size=20, rule="importance")
    batches = list(OnlineSelector(network(), select=selection, ledger=ledger)(stream_of(workspace)))
    ledger.flush()
    (name,) = workspace.names("runs/r/ledger")
    rows = workspace.read_table(f"runs/r/ledger/{name}", LEDGER.names).to_pylist()
    assert {row["selection"] for row in rows} == {selection.label}
    given: dict[str, float] = {}
    for batch in batches:
        for key, weight in zip(batch.keys, batch.weights.tolist(), strict=True):
            given[key] = given.get(key, 0.0) + weight
    assert {row["key"]: row["weight"] for row in rows if row["selected"]} == pytest.approx(given)
    assert all(row["weight"] is None for row in rows if not row["selected"])


def test_a_loader_of_known_length_refuses_uncountable_batches(workspace):
    selector = OnlineSelector(network(), select=SelectionConfig(batch_size=4, score_floor=0.0))
    with pytest.raises(ConfigError, match="could not tell its length"):
        SelectingLoader(stream_of(workspace), selector)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"function": "rho_los"}, "rho_los"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"share": 1.5}, "share 1.5"),
        ({"rule": "best"}, "rule 'best'"),
        ({"function": "uniform", "score_floor": 0.0}, "score_floor with uniform, which has no scores"),
        ({"rule": "importance", "class_floor": 0.5}, "class floor with a rule that weights samples"),
    ],
)
def test_selections_that_cannot_be_are_refused(settings, named):
    with pytest.raises(ConfigError, match=named):
        SelectionConfig(**settings)
