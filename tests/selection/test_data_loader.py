"""SelectingLoader in a plain loop: an epoch's candidates once, resumable anywhere, as long as it says."""

from collections import Counter
from itertools import islice

import pytest
import torch
from helpers.dropin import (
    ALL,
    BATCH,
    TOTAL,
    Recording,
    example_workspace,
    loader_of,
    network,
    run_example,
    sequence,
    stream_of,
    tiny_workspace,
)
from helpers.tiny import write_il
from torch.utils.data import DataLoader

from rhostream import ConfigError, RhostreamError, WorkspaceError
from rhostream.loaders import Order, Prefilter
from rhostream.selection import SelectedBatch, SelectingLoader, images_and_labels, pixel_values_and_labels
from rhostream.selection.data_loader import selected_batch


@pytest.fixture
def workspace(tmp_path):
    return tiny_workspace(tmp_path / "w")


def plain(workspace, workers=0, **settings):
    seen = Recording(selected_batch)
    stream = stream_of(workspace, **settings)
    source = DataLoader(stream, batch_size=None, num_workers=workers) if workers else stream
    return loader_of(source, network(), seen), seen


@pytest.mark.slow
def test_the_example_takes_the_steps_it_is_told(tmp_path, monkeypatch, capsys):
    example_workspace(tmp_path / "w")
    names = run_example("plain_pytorch", monkeypatch, tmp_path / "w", "--steps", 1)
    assert names["selector"].step == 1
    assert "step 1: loss" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_every_iteration_is_an_epoch_of_stated_length_reordered(workspace, workers):
    loader, seen = plain(workspace, workers)
    assert len(loader) == loader.num_batches == 9
    assert loader.num_samples == len(loader.dataset) == 9 * BATCH
    assert loader.batch_size == BATCH
    for _ in range(3):
        assert all(isinstance(batch, SelectedBatch) for batch in loader)
    assert seen.candidates == sequence(workspace, 3)
    assert seen.epochs == [0] * 9 + [1] * 9 + [2] * 9


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_continues_after_the_batch_last_yielded(workspace, workers):
    expected = sequence(workspace, 2)
    loader, seen = plain(workspace, workers)
    for _ in islice(loader, 5):
        pass
    state = loader.state_dict()
    assert state["step"] == 5
    resumed, rest = plain(workspace, 2 - workers)
    resumed.load_state_dict(state)
    resumed.set_epoch(0)  # as trainers do on resuming; it must not go back
    for _ in range(2):
        list(resumed)
    assert seen.candidates + rest.candidates == expected
    assert resumed.selector.step == 18


@pytest.mark.slow
def test_set_epoch_of_loader_and_sampler_begins_an_epoch(workspace):
    expected = sequence(workspace, 3)
    loader, seen = plain(workspace)
    for _ in islice(loader, 4):
        pass
    loader.set_epoch(2)
    list(loader)
    loader.sampler.set_epoch(2)
    list(loader)
    loader.set_epoch(0)
    list(loader)
    assert seen.candidates == expected[:4] + expected[18:] * 2 + expected[:9]


def test_a_stream_resumed_before_wrapping_continues_from_there(workspace):
    stream = stream_of(workspace)
    state = next(batch.state for batch in islice(stream, 3, None))
    resumed = stream_of(workspace)
    resumed.load_state_dict(state)
    seen = Recording(selected_batch)
    list(loader_of(resumed, network(), seen))
    assert seen.candidates == sequence(workspace, 1)[4:]


def test_a_state_of_another_order_is_refused(workspace):
    state = plain(workspace)[0].state_dict()
    with pytest.raises(WorkspaceError, match="stream's seed is 1, the state's is 0"):
        plain(workspace, seed=1)[0].load_state_dict(state)


def test_a_super_batch_lacking_candidates_repeats_a_batch(workspace):
    # An IL model that is never right: the half of the samples with an IL above ln(3 / 1.5) is ruled out.
    write_il(workspace, "contrary", predicted=7)
    settings = {"il": "contrary", "prefilter": Prefilter(chance=1.5), "super_batch_size": 4}
    loader, seen = plain(workspace, **settings)
    batches = list(loader)
    passes = [len(keys) for keys in (batch.keys for batch in stream_of(workspace, **settings))]
    poor = sum(count < 2 for count in passes)
    assert 0 < poor < len(passes)
    assert loader.repeated == poor
    assert len(batches) == len(loader) == len(passes)
    read = Counter(key for keys in seen.candidates for key in keys)
    assert max(read.values()) == 1
    state, position = loader.state_dict()["stream"], {"epoch": 1, "position": 0}
    assert {name: state[name] for name in position} == position


def test_an_epoch_without_candidates_is_an_error_not_endless(workspace):
    write_il(workspace, "contrary", predicted=7)
    loader, _ = plain(workspace, il="contrary", prefilter=Prefilter(chance=4))
    with pytest.raises(RhostreamError, match="the rest of epoch 0 has no candidate to train on"):
        list(loader)


def test_pairs_and_dicts_hold_what_was_selected(workspace):
    batch = next(iter(plain(workspace)[0]))
    pair, inputs = images_and_labels(batch), pixel_values_and_labels(batch)
    assert type(pair) is tuple
    assert pair[0] is inputs["pixel_values"] is batch.images
    assert pair[1] is inputs["labels"] is batch.labels
    assert set(inputs) == {"pixel_values", "labels"}


@pytest.mark.slow
@pytest.mark.parametrize("collate", [images_and_labels, pixel_values_and_labels])
def test_weights_are_never_lost_in_silence(workspace, collate):
    batch = next(iter(plain(workspace)[0]))
    weighted = SelectedBatch(**{**vars(batch), "weights": torch.tensor([1.0, 2.0, 1.0, 1.0])})
    with pytest.raises(ConfigError, match="the selected samples are weighted"):
        collate(weighted)


def test_what_is_no_stream_of_super_batches_is_refused(workspace):
    with pytest.raises(ConfigError, match="list is no stream"):
        SelectingLoader([], plain(workspace)[0].selector)
    with pytest.raises(ConfigError, match="batch_size=4 would batch super-batches again"):
        SelectingLoader(DataLoader(stream_of(workspace), batch_size=4), plain(workspace)[0].selector)


def test_all_candidates_of_an_epoch_pass_once(workspace):
    loader, seen = plain(workspace)
    list(loader)
    assert Counter(key for keys in seen.candidates for key in keys) == Counter(ALL)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_epoch_steps_make_an_epoch_as_long_as_asked(workspace, workers):
    stream = stream_of(workspace)
    source = DataLoader(stream, batch_size=None, num_workers=workers) if workers else stream
    seen = Recording(selected_batch)
    loader = loader_of(source, network(), seen, epoch_steps=20)
    assert len(loader) == 20
    assert loader.num_samples == 20 * BATCH
    for epoch in range(2):
        loader.set_epoch(epoch)
        assert len(list(loader)) == 20
    list(loader)  # a trainer that tells no epoch
    assert seen.candidates == sequence(workspace, 7)[:60]
    loader.set_epoch(1)
    next(iter(loader))
    assert seen.candidates[60] == seen.candidates[20]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 19, 20, 33])
def test_an_epoch_of_epoch_steps_resumes_at_its_rest(workspace, stop):
    def of(seen):
        return loader_of(stream_of(workspace), network(), seen, epoch_steps=20)

    whole, before, after = (Recording(selected_batch) for _ in range(3))
    loader = of(whole)
    for _ in range(3):
        list(loader)
    loader, taken = of(before), 0
    while taken < stop:
        for _ in islice(loader, stop - taken):
            taken += 1
    resumed = of(after)
    resumed.load_state_dict(loader.state_dict())
    for epoch in range(stop // 20, 3):
        resumed.set_epoch(epoch)
        assert len(list(resumed)) == (20 - stop % 20 if epoch == stop // 20 else 20)
    assert before.candidates + after.candidates == whole.candidates


def test_epoch_steps_below_one_are_refused(workspace):
    with pytest.raises(ConfigError, match="epoch_steps 0: give the steps of an epoch, 1 or more"):
        loader_of(stream_of(workspace), network(), selected_batch, epoch_steps=0)


def test_no_batch_is_smaller_than_the_others_unless_kept(workspace):
    loader = loader_of(
        stream_of(workspace, order=Order(block_shards=2), super_batch_size=20), network(), selected_batch
    )
    assert [len(batch) for _ in range(2) for batch in loader] == [BATCH] * 14
    assert loader.dropped == TOTAL - 7 * 20 == 5
    kept = loader_of(stream_of(workspace, super_batch_size=20), network(), selected_batch)
    assert [len(batch) for batch in kept] == [BATCH] * 7 + [2]
    assert kept.dropped == 0


def test_a_corpus_smaller_than_a_super_batch_gives_full_batches(workspace):
    loader = loader_of(stream_of(workspace, order=Order(), super_batch_size=1000), network(), selected_batch)
    assert [len(batch) for batch in loader] == [BATCH]
    assert loader.dropped == 0
