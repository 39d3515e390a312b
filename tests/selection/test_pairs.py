"""Image-text pairs through the selector: scores of the whole batch, one choice for any number of ranks, resume."""

import json
import os
from typing import Any

import pytest
import torch
import torch.distributed as dist
from helpers.pairs import Towers, pairs_super_batch, shared_out, stream_of
from helpers.ranks import on_jobs

from rhostream import ConfigError, OnlineSelector, Pairs, SelectionConfig
from rhostream.loaders import Workspace
from rhostream.loaders.reference import PairReference
from rhostream.selection import Ledger, PairEmbeddings

N, BATCH, CHUNK = 24, 8, 6
LOSSES = ("sigmoid", "softmax")


def reference_of(loss: str) -> PairReference:
    return PairReference(loss=loss, scale=12.0, bias=-2.0)


def selector_of(select: str | SelectionConfig = "jest", loss: str = "sigmoid", **settings: Any) -> OnlineSelector:
    return OnlineSelector(Towers(), batch_size=BATCH, select=select, task=Pairs(loss=loss), **settings)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("select", "learner", "reference"), [("learnability", 1, 1), ("easy_reference", 0, 1)])
def test_top_pairs_have_the_highest_differences_of_losses(loss, select, learner, reference):
    super_batch = pairs_super_batch(N, reference=reference_of(loss))
    batch = selector_of(select, loss).select(super_batch)
    normalized = super_batch.normalized()
    with torch.no_grad():
        ours = PairEmbeddings.of(Towers()(normalized.images, normalized.tokens)).losses(loss)
    theirs = PairEmbeddings.of_reference(super_batch)
    assert theirs is not None
    expected = learner * ours - reference * theirs.losses(loss)
    assert batch is not None
    assert list(batch.keys) == [super_batch.keys[at] for at in expected.argsort(descending=True)[:BATCH]]
    at = [super_batch.keys.index(key) for key in batch.keys]
    assert torch.equal(batch.images, normalized.images[at])
    assert torch.equal(batch.tokens["input_ids"], normalized.tokens["input_ids"][at])


def test_hard_learner_needs_no_reference():
    batch = selector_of("hard_learner").select(pairs_super_batch(N))
    assert batch is not None
    assert len(batch) == BATCH


def test_jest_draws_anew_for_each_super_batch_and_seed():
    settings = {"reference": reference_of("sigmoid")}
    keys = [list(batch.keys) for batch in selector_of()(stream_of(3, **settings))]
    assert keys == [list(batch.keys) for batch in selector_of()(stream_of(3, **settings))]
    assert keys != [list(batch.keys) for batch in selector_of(seed=1)(stream_of(3, **settings))]
    places = [sorted(int(key.split("-")[2]) for key in each) for each in keys]
    assert places[0] != places[1]


def test_scores_ahead_of_training_survive_a_resume(tmp_path):
    settings = {"reference": reference_of("sigmoid")}
    whole = [list(batch.keys) for batch in selector_of(staleness=1)(stream_of(4, **settings))]
    first = selector_of(staleness=1)
    state, before = None, []
    for batch in first(stream_of(4, **settings)):
        before.append(list(batch.keys))
        if len(before) == 2:
            state = first.state_dict()
            break
    assert state is not None
    assert state["ahead"][0]["learner"]["images"].shape == (N, 8)
    torch.save(state, tmp_path / "state.pt")
    rest = selector_of(staleness=1)
    for weights in rest.model.parameters():  # the scores come from the state, and from no pass of this model
        weights.detach().zero_()
    rest.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    left = (pairs_super_batch(N, index=index, **settings) for index in (2, 3))
    assert [list(next(rest(left)).keys)] == whole[2:3]


def test_ledger_tells_losses_and_scores_of_pairs(tmp_path):
    workspace = Workspace(tmp_path)
    with Ledger(workspace, "pairs") as ledger:
        list(selector_of(ledger=ledger)(stream_of(2, reference=reference_of("sigmoid"))))
    name = workspace.names(ledger.folder, ".parquet")[0]
    rows = workspace.read_table(f"{ledger.folder}/{name}").to_pylist()
    assert len(rows) == 2 * N
    assert sum(row["selected"] for row in rows) == 2 * BATCH
    assert all(row["loss"] is not None and row["score"] is not None for row in rows)


def choices(loss: str) -> dict[str, list[str]]:
    """By selection, the keys of two super-batches that this rank was given."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group("gloo")
    rank, found = (dist.get_rank() if ranks > 1 else 0), {}
    for select in ("jest", "learnability", "easy_reference", "hard_learner"):
        selector = selector_of(select, loss)
        found[select] = []
        for index in range(2):
            whole = pairs_super_batch(N, index=index, reference=reference_of(loss))
            batch = selector.select(shared_out(whole, rank, ranks, CHUNK))
            assert batch is not None
            assert len(batch) == BATCH // ranks
            expected = whole.normalized()
            at = [whole.keys.index(key) for key in batch.keys]
            assert torch.equal(batch.images, expected.images[at])
            assert torch.equal(batch.tokens["input_ids"], expected.tokens["input_ids"][at])
            found[select].append(sorted(batch.keys))
    if ranks > 1:
        dist.destroy_process_group()
    return found


@pytest.mark.slow
def test_one_two_and_four_ranks_choose_the_same_pairs():
    jobs = [(ranks, "choices", [loss]) for loss in LOSSES for ranks in (2, 4)]
    told = on_jobs("selection.test_pairs", jobs)
    for loss, jobs_of in zip(LOSSES, (told[:2], told[2:]), strict=True):
        alone = choices(loss)
        for by_rank in jobs_of:
            together = {
                select: [sorted(key for rank in by_rank for key in rank[select][index]) for index in range(2)]
                for select in alone
            }
            assert json.dumps(together) == json.dumps(alone)


@pytest.mark.parametrize(
    ("select", "loss", "settings", "told"),
    [
        ("rho_loss", "sigmoid", {}, "'rho_loss' scores each candidate by itself"),
        ("jest", "sigmoid", {}, "needs the embeddings of a reference model, and the stream joins none"),
        ("jest", "sigmoid", {"reference": reference_of("softmax")}, "trained with the softmax loss, and the learner"),
    ],
)
def test_selections_that_do_not_fit_pairs_are_refused(select, loss, settings, told):
    with pytest.raises(ConfigError, match=told):
        selector_of(select, loss).select(pairs_super_batch(N, **settings))


def test_pairs_functions_are_refused_for_classes():
    selector = OnlineSelector(Towers(), batch_size=BATCH, select="jest")
    with pytest.raises(ConfigError, match=r"'jest' scores image-text pairs: give task=Pairs\(\)"):
        selector.select(pairs_super_batch(N))
