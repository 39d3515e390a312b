"""Scoring beside the training: with the weights from before the step, and no trace in it."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
import torch
import torch.nn.functional as F
from helpers.tiny import write_il, write_workspace
from torch import nn

from rhostream import ConfigError, RhostreamError
from rhostream.loaders import CandidateStream
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.models.costs import Costs
from rhostream.pipeline.training.selection_plan import plan_selection
from rhostream.selection import OnlineSelector, ScoreCache, Scorer, ScoringOptions, SelectionConfig
from rhostream.selection.scoring.scorer import scoring_mode

STEPS = 5


@pytest.fixture
def workspace(tmp_path):
    made = write_workspace(tmp_path / "w", (60, 40))
    write_il(made)
    return made


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(32, 3),
    )


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> None:
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()
    optimizer.zero_grad()


def trained(workspace, model: nn.Module, **settings):
    """Batches of one pass, each trained on after it was handed out, and the selector."""
    selector = OnlineSelector(model, batch_size=4, **settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    torch.manual_seed(1)  # of the dropout
    batches = []
    for batch in selector(CandidateStream(workspace, il="strided_cnn", super_batch_size=20)):
        batches.append(batch)
        step(model, optimizer, batch.images, batch.labels)
    return batches, selector


def test_each_later_choice_uses_weights_of_one_step_before(workspace):
    model = network()
    batches, _ = trained(workspace, model, score_ahead=True)
    again = network()
    optimizer = torch.optim.SGD(again.parameters(), lr=0.5)
    before = [network()]  # the models that have scored
    torch.manual_seed(1)
    for batch in batches:
        candidates = batch.super_batch
        scorer = before[max(0, len(before) - 2)]
        with scoring_mode(scorer):
            logits = scorer(candidates.spec.normalize(candidates.images))
        reducible = F.cross_entropy(logits, candidates.labels, reduction="none") - candidates.il
        assert set(batch.keys) == {candidates.keys[at] for at in reducible.topk(4).indices}
        # The same training without any scoring meets the same random numbers, and ends at the same weights.
        step(again, optimizer, batch.images, batch.labels)
        before.append(copy.deepcopy(again))
    assert len(batches) == STEPS
    for name, value in again.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
    in_turn, _ = trained(workspace, network())
    assert [batch.keys for batch in in_turn] != [batch.keys for batch in batches]
    assert in_turn[0].keys == batches[0].keys


def test_the_pass_runs_while_the_model_is_trained(workspace):
    """The step ends only when the next super-batch is being scored."""
    scoring = threading.Event()

    class Slow(nn.Linear):
        def forward(self, images):
            if threading.current_thread() is not threading.main_thread():
                scoring.set()
            return super().forward(images.flatten(1))

    scored = 0
    for _ in OnlineSelector(Slow(192, 3), batch_size=4, score_ahead=True)(
        CandidateStream(workspace, il="strided_cnn", super_batch_size=20)
    ):
        scored += scoring.wait(30 if scored < STEPS - 1 else 0)
        scoring.clear()
    assert scored == STEPS - 1


def test_the_thread_computes_in_the_callers_autocast_type(workspace):
    seen = set()

    class Spy(nn.Linear):
        def forward(self, images):
            logits = super().forward(images.flatten(1))
            seen.add(logits.dtype)
            return logits

    with torch.autocast("cpu", torch.bfloat16):
        trained(workspace, Spy(192, 3), score_ahead=True)
    assert seen == {torch.bfloat16}


def test_flops_are_charged_as_in_turn(workspace):
    counted = []
    for score_ahead in (False, True):
        costs = Costs()
        trained(workspace, network(), meter=costs, score_ahead=score_ahead)
        counted.append(costs.spent("score")["flops"])
    assert counted[0] == counted[1] > 0


def test_a_state_is_taken_when_nothing_is_being_scored(workspace):
    begun, released = threading.Event(), threading.Event()

    class Held(nn.Linear):
        def forward(self, images):
            if threading.current_thread() is not threading.main_thread():
                begun.set()
                released.wait(30)
            return super().forward(images.flatten(1))

    selector = OnlineSelector(Held(192, 3), batch_size=4, score_ahead=True, cache=ScoreCache(max_age=9))
    next(selector(CandidateStream(workspace, il="strided_cnn", super_batch_size=20)))
    assert begun.wait(30)
    with ThreadPoolExecutor() as other:
        state = other.submit(selector.state_dict)
        assert not wait({state}, timeout=0.2).done
        released.set()
        assert len(state.result()["scoring"]["cache"]["losses"]) == 40


def test_an_error_of_the_pass_reaches_the_caller(workspace):
    model = network()
    selector = OnlineSelector(model, batch_size=4, score_ahead=True)
    batches = selector(CandidateStream(workspace, il="strided_cnn", super_batch_size=20))
    next(batches)
    model[0].weight.data.fill_(float("nan"))
    next(batches)  # scored before
    with pytest.raises(RhostreamError, match="after step 1: 20 of 20 scores are not finite"):
        next(batches)


def test_what_cannot_run_alongside_is_refused_or_takes_turns(workspace):
    with pytest.raises(ConfigError, match=r"score_ahead.*draws \(MC dropout\)"):
        trained(workspace, network(), select="bald", score_ahead=True)
    with pytest.raises(ConfigError, match=r"score_ahead with select 'bald'.*leave score_ahead out"):
        plan_selection(TrainConfig(select="bald", score_ahead=True))

    class Single(nn.Linear):
        def forward(self, images):
            return super().forward(images.flatten(1))

        def __deepcopy__(self, memo):
            raise TypeError("there is only one")

    with pytest.raises(ConfigError, match=r"score_ahead: Single cannot be copied \(there is only one\): leave"):
        trained(workspace, Single(192, 3), score_ahead=True)
    for queues in (SelectionConfig(batch_size=4, share=0.5), SelectionConfig(function="uniform", batch_size=4)):
        batches, _ = trained(workspace, network(), select=queues, score_ahead=True)
        in_turn, _ = trained(workspace, network(), select=queues)
        assert [batch.keys for batch in batches] == [batch.keys for batch in in_turn]


@pytest.mark.slow
def test_a_compiled_model_is_scored_as_the_module_inside(workspace):
    model = network()
    batches, _ = trained(workspace, model, score_ahead=True)
    plain = network()
    compiled = torch.compile(plain, backend="eager")
    scorer = Scorer(compiled, ScoringOptions())
    found, _ = trained(workspace, plain, scorer=scorer, score_ahead=True)
    assert [batch.keys for batch in found] == [batch.keys for batch in batches]
