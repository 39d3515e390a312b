"""Scores that are some steps old: as old as was asked for and never older, whoever is late."""

import random
import time
from typing import Any

import pytest
import torch
import torch.distributed as dist
from helpers.ranks import on_jobs
from helpers.runs import ledger
from helpers.tiny import write_workspace
from torch import Tensor, nn

from rhostream.loaders import CandidateStream, ReadOptions, Workspace
from rhostream.loaders.stream import Exchange
from rhostream.selection import Ledger, OnlineSelector, Scorer
from rhostream.selection.scoring import (
    CandidateScores,
    NoMeter,
    RemoteScorers,
    remote_scorers,
    selection_function,
    serve_scores,
)
from rhostream.selection.tasks import Classification

SUPER_BATCHES, EPOCHS, SIZE = 12, 2, 8
SELECT = "train_loss"
LONGEST_DELAY = 0.01  # seconds
#: Staleness, scorers and learners: with fewer scorers than the staleness some super-batches wait, with more some do.
JOBS = [(0, 1, 1), (3, 1, 1), (3, 2, 1), (2, 3, 1), (2, 2, 2)]


class Counting(nn.Module):
    """Its output, which is the loss as well, is the number of steps that it has been trained for."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images)) + self.steps

    @torch.no_grad()
    def train_for_a_step(self) -> None:
        self.steps += 1


TASK = Classification(criterion=lambda outputs, batch: outputs)


def stream_of(workspace: Workspace | str, rank: int = 0, ranks: int = 1) -> CandidateStream:
    options = ReadOptions(threads=1)
    return CandidateStream(
        workspace, super_batch_size=SIZE, seed=3, read_options=options, dp_rank=rank, dp_world_size=ranks
    )


def learn(model: Counting, stream: CandidateStream, run: str, **settings: Any) -> None:
    """Train for the epochs, each step for another while."""
    chance = random.Random(run)
    with Ledger(stream.workspace, run) as written:
        selector = OnlineSelector(model, batch_size=4, select=SELECT, task=TASK, ledger=written, **settings)
        for _ in range(EPOCHS):
            for _ in selector(stream):
                time.sleep(chance.uniform(0, LONGEST_DELAY))
                model.train_for_a_step()


def job(workspace: str, run: str, staleness: str, scorers: str) -> None:
    """What each rank does: the first ones learn, the last ones score, and answer late."""
    dist.init_process_group("gloo")
    together, model, learners = Exchange(), Counting(), dist.get_world_size() - int(scorers)
    together.join()
    if together.rank < learners:
        ranks, known = range(learners, together.size), Exchange(members=learners)
        asked = RemoteScorers(model.state_dict, ranks, known, together.group, charge=lambda spent: None)
        stream = stream_of(workspace, together.rank, learners)
        stream.reads = "nothing"
        learn(model, stream, run, staleness=int(staleness), scorers=asked)
        asked.end()
    else:
        answer_late(random.Random(together.rank))
        serve_scores(
            model,
            stream_of(workspace),
            CandidateScores(Scorer(model, task=TASK), None, NoMeter(), Exchange(alone=True)),
            selection_function(SELECT),
            scorers=int(scorers),
            group=together.group,
            spent=lambda: (0.0, 0.0, 0.0),
        )
    together.wait()
    dist.destroy_process_group()


def answer_late(chance: random.Random) -> None:
    """Have this scorer send its answers after other whiles."""
    send = remote_scorers._send

    def late(*message: Any) -> None:
        time.sleep(chance.uniform(0, 2 * LONGEST_DELAY))
        send(*message)

    remote_scorers._send = late


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return write_workspace(tmp_path_factory.mktemp("stale") / "w", (SUPER_BATCHES * SIZE // 2,) * 2)


def ages(workspace: Workspace, run: str) -> list[int]:
    """By how many steps the scores of each super-batch were older than the model that was trained on it."""
    found: dict[int, set[float]] = {}
    for row in ledger(workspace, run):
        found.setdefault(row["step"], set()).add(row["loss"])
    assert sorted(found) == list(range(1, SUPER_BATCHES * EPOCHS + 1))
    return [step - 1 - int(loss) for step, (loss,) in sorted(found.items())]  # one model has scored all of it


def expected(staleness: int) -> list[int]:
    """Those at the beginning of an epoch are scored together."""
    return [min(number, staleness) for number in range(SUPER_BATCHES)] * EPOCHS


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_one_process_scores_so_many_steps_ahead(workspace: Workspace, staleness: int) -> None:
    learn(Counting(), stream_of(workspace), f"alone-{staleness}", staleness=staleness)
    assert ages(workspace, f"alone-{staleness}") == expected(staleness)


@pytest.mark.slow
def test_scores_of_late_scorers_are_no_older_than_asked(workspace: Workspace) -> None:
    runs = ["-".join(map(str, ("late", *each))) for each in JOBS]
    asked = [
        (scorers + learners, "job", (workspace.location, run, str(staleness), str(scorers)))
        for run, (staleness, scorers, learners) in zip(runs, JOBS, strict=True)
    ]
    on_jobs("selection.test_staleness", asked)
    for run, (staleness, _, _) in zip(runs, JOBS, strict=True):
        assert ages(workspace, run) == expected(staleness), run
