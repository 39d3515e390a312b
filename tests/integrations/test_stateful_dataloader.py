"""torchdata's StatefulDataLoader over the stream: the same order for any workers, mid-epoch states in its own form."""

import itertools

import pytest
import torch
from helpers.dropin import TOTAL, example_workspace, network, run_example, sequence, stream_of, tiny_workspace
from torchdata.stateful_dataloader import StatefulDataLoader

from rhostream import ConfigError
from rhostream.selection import OnlineSelector, SelectingLoader


@pytest.fixture
def workspace(tmp_path):
    return tiny_workspace(tmp_path / "w")


def loader_over(workspace, workers):
    stream = stream_of(workspace)
    return stream, StatefulDataLoader(stream, batch_size=None, num_workers=workers)


def keys(batches):
    return [batch.keys for batch in batches]


def test_the_example_goes_on_from_its_checkpoint(tmp_path, monkeypatch, capsys):
    example_workspace(tmp_path / "w")
    arguments = (tmp_path / "w", "--checkpoint", tmp_path / "checkpoint.pt")
    run_example("stateful_dataloader", monkeypatch, *arguments, "--steps", 1)
    run_example("stateful_dataloader", monkeypatch, *arguments)
    said = [line.split(", ")[1] for line in capsys.readouterr().out.splitlines()]
    assert said == ["32 samples", "32 samples", "32 samples"]


@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize("stop", [1, 4, 8])
def test_a_state_taken_mid_epoch_continues_with_exactly_the_rest(workspace, tmp_path, workers, stop):
    expected = sequence(workspace, 2)
    _, loader = loader_over(workspace, workers)
    before = keys(itertools.islice(loader, stop))
    torch.save(loader.state_dict(), tmp_path / "state.pt")
    stream, resumed = loader_over(workspace, workers)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert before + keys(resumed) == expected[:9]
    stream.set_epoch(1)
    assert keys(resumed) == expected[9:]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_of_an_epochs_end_continues_with_the_next(workspace, workers):
    expected = sequence(workspace, 2)
    _, loader = loader_over(workspace, workers)
    keys(loader)
    state = loader.state_dict()
    stream, resumed = loader_over(workspace, workers)
    stream.set_epoch(1)
    resumed.load_state_dict(state)
    assert keys(resumed) == expected[9:]


def test_a_selecting_loader_resumes_under_another_number_of_workers(workspace):
    _, source = loader_over(workspace, 2)
    loader = SelectingLoader(source, OnlineSelector(network(), batch_size=4))
    before = [batch.super_batch.keys for batch in itertools.islice(loader, 3)]
    _, other = loader_over(workspace, 1)
    resumed = SelectingLoader(other, OnlineSelector(network(), batch_size=4))
    resumed.load_state_dict(loader.state_dict())
    assert before + [batch.super_batch.keys for batch in resumed] == sequence(workspace, 1)


def test_a_workers_state_is_not_taken_for_the_streams(workspace):
    stream, loader = loader_over(workspace, 2)
    next(iter(loader))
    workers = loader.state_dict()["_snapshot"]["_worker_snapshots"]
    state = workers["worker_0"]["dataset_state"]
    with pytest.raises(ConfigError, match="that of one worker of a DataLoader"):
        stream.load_state_dict(state)


def test_a_position_is_found_by_the_candidates_given_out(workspace):
    stream = stream_of(workspace)
    list(itertools.islice(stream, 2))
    assert stream.state_dict(num_samples=16)["position"] == 48
    assert stream.state_dict(num_samples=16, from_beginning=True)["position"] == 16
    assert stream.state_dict()["position"] == 32
    assert stream.samples == TOTAL
