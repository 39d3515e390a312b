"""The stream of candidates: every sample once, joined by key, in one order, resumable (invariants 6 and 7)."""

import gc
import itertools
import pickle
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from helpers.streams import passed_over, refuses
from helpers.tiny import CLASSES, another_split, il_of, image_of, rewrite_shard, write_il, write_workspace
from torch.utils.data import DataLoader

from rhostream import ConfigError, IrreducibleLossError, ShardError, WorkspaceError
from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.loaders.decode.read_options import ReadOptions
from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.loaders.reference.prefilter import Prefilter
from rhostream.loaders.storage import shard_reader
from rhostream.loaders.storage.workspace import Workspace
from rhostream.loaders.stream.candidate_stream import CandidateStream
from rhostream.loaders.stream.order import Order

ROWS = (37, 20, 41, 5, 30, 12)
TOTAL = sum(ROWS)


@pytest.fixture
def workspace(tmp_path):
    made = write_workspace(tmp_path / "w", ROWS)
    write_il(made)
    return made


def stream_of(workspace, **settings):
    defaults = {"il": "strided_cnn", "super_batch_size": 16, "order": Order(block_shards=2, last="keep")}
    return CandidateStream(workspace, **(defaults | settings))


def keys_of(batches):
    return [key for batch in batches for key in batch.keys]


def test_each_sample_comes_once_an_epoch_with_its_own_values(workspace):
    seen = set()
    for batch in stream_of(workspace):
        for i, key in enumerate(batch.keys):
            number = int(key[1:])
            expected = ImageSpec(size=8).pixels(image_of(number, int(batch.labels[i])))
            assert np.array_equal(batch.images[i].numpy(), expected)
            assert batch.images[i, :, 0, 0].tolist() == [number // 256, number % 256, int(batch.labels[i])]
            assert batch.il[i].item() == pytest.approx(il_of(number))
            seen.add(key)
    assert seen == {f"s{number}" for number in range(TOTAL)}


def test_an_epoch_has_the_stated_length_the_next_another_order(workspace):
    stream = stream_of(workspace)
    first, second = list(stream), list(stream)
    assert len(first) == len(second) == len(stream) == TOTAL // 16  # the one left over joins the last
    assert [batch.epoch for batch in second] == [1] * len(second)
    assert sorted(keys_of(first)) == sorted(keys_of(second))
    assert keys_of(first) != keys_of(second)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("workers", [0, *(pytest.param(workers, marks=pytest.mark.slow) for workers in (1, 3))])
def test_ranks_and_workers_share_out_one_and_the_same_sequence(workspace, monkeypatch, ranks, workers):
    expected = [batch.keys for batch in stream_of(workspace)]
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    parts = []
    for rank in range(ranks):
        monkeypatch.setenv("RANK", str(rank))
        stream = stream_of(workspace)
        batches = list(DataLoader(stream, batch_size=None, num_workers=workers)) if workers else list(stream)
        parts.append({batch.index: batch for batch in batches})
        assert len(batches) == len(stream) == len(expected)
    for index, keys in enumerate(expected):
        if ranks > 1:
            assert [part[index].part.whole.keys for part in parts] == [keys] * ranks
        assert [part[index].keys for part in parts] == [keys[rank::ranks] for rank in range(ranks)]


def test_numbers_given_name_the_data_parallel_rank(workspace, monkeypatch):
    expected = [batch.keys for batch in stream_of(workspace)]
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert [batch.keys for batch in stream_of(workspace, dp_rank=1, dp_world_size=2)] == [
        keys[1::2] for keys in expected
    ]
    assert [batch.keys for batch in stream_of(workspace, dp_rank=0, dp_world_size=1)] == expected
    with refuses(ConfigError, match="dp_rank 2 of dp_world_size 2: give both, ranks count from 0"):
        stream_of(workspace, dp_rank=2, dp_world_size=2)


def test_dropping_the_remainder_is_counted(workspace):
    stream = stream_of(workspace, order=Order(last="drop"))
    assert stream.dropped == TOTAL % 16
    assert len(keys_of(stream)) == TOTAL - stream.dropped


@pytest.mark.parametrize("stop", [0, 1, 5, 8, 9])
def test_a_resumed_stream_repeats_no_sample_and_skips_none(workspace, stop):
    whole = stream_of(workspace)
    expected = keys_of(whole) + keys_of(whole)
    stream = stream_of(workspace)
    before = list(itertools.islice(stream, stop))
    states = [before[-1].state] if before else [stream.state_dict()]
    for state in states:
        resumed = stream_of(workspace)
        resumed.load_state_dict(state)
        after = keys_of(resumed)
        if state["epoch"] == 0:
            after += keys_of(resumed)
        assert keys_of(before) + after == expected


def test_the_state_describes_the_batch_in_use_not_those_prefetched(workspace):
    stream = stream_of(workspace, read_options=ReadOptions(prefetch=5))
    iterator = iter(stream)
    for _ in range(3):
        batch = next(iterator)
    assert stream.state_dict() == batch.state
    assert batch.state["position"] == 48


def test_a_stream_resumes_under_another_number_of_ranks_and_workers(workspace, monkeypatch):
    expected = keys_of(stream_of(workspace))
    monkeypatch.setenv("WORLD_SIZE", "2")
    ranks = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        ranks.append(list(itertools.islice(stream_of(workspace), 4)))
    first, second = ranks
    assert first[-1].state == second[-1].state
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    resumed = stream_of(workspace)
    resumed.load_state_dict(first[-1].state)
    rest = list(DataLoader(resumed, batch_size=None, num_workers=2))
    assert [key for batch in first for key in batch.part.whole.keys] + keys_of(rest) == expected


def test_a_state_of_another_order_is_refused(workspace):
    with pytest.raises(WorkspaceError, match="seed is 0, the state's is 1"):
        stream_of(workspace).load_state_dict(stream_of(workspace, seed=1).state_dict())
    fewer = CorpusMetadata.read(workspace).split("train")[:-1]
    for other in ({"shards": fewer}, {"shards": fewer[::-1]}, {"order": Order(block_shards=3)}):
        with pytest.raises(WorkspaceError, match="stream's order is"):
            stream_of(workspace).load_state_dict(stream_of(workspace, **other).state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_follow_set_epoch_and_never_silently_repeat_an_epoch(workspace, persistent):
    expected = stream_of(workspace)
    epochs = [keys_of(expected), keys_of(expected)]
    stream = stream_of(workspace)
    loader = DataLoader(stream, batch_size=None, num_workers=2, persistent_workers=persistent)
    assert keys_of(loader) == epochs[0]
    with refuses(ConfigError, match=r"epoch 0 has been streamed already, or a part"):
        list(loader)
    loader = DataLoader(stream, batch_size=None, num_workers=2, persistent_workers=persistent)
    for epoch in (0, 1, 0):
        stream.set_epoch(epoch)
        assert keys_of(loader) == epochs[epoch]


@pytest.mark.slow
def test_threads_read_their_own_samples_while_files_are_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_reader, "MAX_OPEN_SHARDS", 2)
    made = write_workspace(tmp_path / "many", (4,) * 40)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        stream = CandidateStream(
            made, super_batch_size=80, order=Order(block_shards=40), read_options=ReadOptions(threads=8)
        )
        for _ in range(5):
            for batch in stream:
                numbers = batch.images[:, 0, 0, 0].int() * 256 + batch.images[:, 1, 0, 0].int()
                assert [f"s{number}" for number in numbers.tolist()] == batch.keys
    finally:
        sys.setswitchinterval(interval)


def test_resuming_reads_only_the_shards_that_are_still_needed(workspace):
    order = stream_of(workspace).epoch_order(0)
    early = order.shards_of(0)
    corpus = CorpusMetadata.read(workspace)
    resumed = stream_of(workspace)
    start = sum(ROWS[shard] for shard in early)
    resumed.load_state_dict(resumed.state_dict() | {"position": start})
    for shard in early:
        workspace.remove(corpus.split("train")[shard].tar)
        workspace.remove(corpus.split("train")[shard].index)
    assert len(keys_of(resumed)) == TOTAL - start


def test_the_prefilter_passes_candidates_over_without_reading_them(workspace):
    write_il(workspace, "contrary", predicted=0)
    # il = number / 100 exceeds ln 3 from number 110 on; the IL model agrees with the label of class 0.
    expected = {f"s{n}" for n in range(110, TOTAL) if (n * 7 + n // 3) % 3 != 0}
    for key in expected:  # whoever reads one of them stops with an error
        overwrite_image(workspace, key, b"\0" * 10_000)
    batches = list(stream_of(workspace, il="contrary", prefilter=Prefilter(chance=1.0)))
    assert set(passed_over(batches)) == {(key, "filtered") for key in expected}
    assert expected | set(keys_of(batches)) == {f"s{n}" for n in range(TOTAL)}
    with pytest.raises(ShardError, match="cannot be read"):
        list(stream_of(workspace, il="contrary"))


def spoil(workspace, change, shard="train-000002", name="strided_cnn"):
    part = f"il/{name}/scores/{shard}.parquet"
    workspace.write_table(part, change(workspace.read_table(part)))


def with_il_values(table, values):
    return table.set_column(table.schema.get_field_index("il"), "il", pa.array(values, pa.float32()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_a_missing_or_nonfinite_loss_is_an_error_with_counts(workspace, bad):
    spoil(workspace, lambda table: with_il_values(table, [bad, bad, *table.column("il").to_pylist()[2:]]))
    with pytest.raises(IrreducibleLossError, match=r"train-000002: 2 of 41 samples have no finite irreducible loss"):
        list(stream_of(workspace))


def test_missing_losses_are_dropped_only_when_asked_and_are_counted(workspace):
    spoil(workspace, lambda table: with_il_values(table, [None, *table.column("il").to_pylist()[1:]]))
    batches = list(stream_of(workspace, on_missing="drop"))
    assert passed_over(batches) == [("s57", "il_missing")]
    assert np.isnan(np.concatenate([batch.passed_over.il for batch in batches])).all()
    assert len(keys_of(batches)) == TOTAL - 1
    assert sum(batch.candidate_count for batch in batches) == TOTAL


def test_a_part_of_another_length_is_refused_with_the_remedy(workspace):
    spoil(workspace, lambda table: table.slice(0, 40))
    with pytest.raises(IrreducibleLossError, match=r"has 41 rows, its IL part has 40.*only train-000002\)"):
        list(stream_of(workspace))


def test_rows_in_another_order_are_refused_never_joined_by_position(workspace):
    spoil(workspace, lambda table: table.take(list(range(41))[::-1]))
    with pytest.raises(IrreducibleLossError, match="40 of 41 keys differ"):
        list(stream_of(workspace))


def test_an_il_part_for_other_labels_or_images_is_refused(workspace):
    rewrite_shard(workspace, "train-000002", "labels moved")
    with pytest.raises(IrreducibleLossError, match="train-000002 holds other labels or images than when it was scored"):
        list(stream_of(workspace))


def test_a_part_made_by_another_model_is_refused(workspace):
    model = workspace.read_json("il/strided_cnn/model.json")
    workspace.write_json("il/strided_cnn/model.json", model | {"best_epoch": 7})
    with pytest.raises(IrreducibleLossError, match="made by another model than 'strided_cnn'"):
        list(stream_of(workspace))


def test_losses_of_a_model_trained_on_the_samples_are_refused(workspace):
    def seen(table):
        column = pa.array([True, True, *[False] * (table.num_rows - 2)])
        return table.set_column(table.schema.get_field_index("in_sample"), "in_sample", column)

    spoil(workspace, seen)
    with pytest.raises(IrreducibleLossError, match="was trained on 2 of its 41 samples"):
        list(stream_of(workspace))


def test_a_table_that_is_not_there_names_those_that_are(workspace):
    with pytest.raises(IrreducibleLossError, match=r"IL models there: strided_cnn"):
        stream_of(workspace, il="resnet18")


def test_a_model_of_another_split_is_refused_before_any_step(workspace):
    write_workspace(Path(workspace.location), ROWS)
    another_split(workspace)
    with pytest.raises(
        IrreducibleLossError,
        match=r"trained on another split.*train the IL model \(name strided_cnn, overwrite\), then score the shards",
    ):
        stream_of(workspace)


def test_broken_metadata_and_a_location_without_driver_are_named(workspace):
    workspace.write_json("corpus.json", {})
    with pytest.raises(WorkspaceError, match=r"corpus.json has no manifest: restore it, or write the shards again"):
        CorpusMetadata.read(workspace)
    with pytest.raises(ConfigError, match=r"foo://x/y.*Protocol not known"):
        Workspace("foo://x/y")


def test_a_table_of_another_class_list_is_refused(workspace):
    workspace.write_json("il/strided_cnn/model.json", {"classes": [*CLASSES, "hat"], "fingerprint": "another"})
    with pytest.raises(IrreducibleLossError, match="knows 4 classes"):
        stream_of(workspace)


def test_a_foreign_table_in_any_order_is_joined_by_key(workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("RHO_CACHE", str(tmp_path / "cache"))
    numbers = np.random.default_rng(0).permutation(TOTAL + 500)
    table = pa.table({"key": [f"s{n}" for n in numbers], "il": pa.array([il_of(n) for n in numbers], pa.float32())})
    Workspace(tmp_path).write_table("foreign.parquet", table)
    for batch in stream_of(workspace, il=str(tmp_path / "foreign.parquet")):
        assert batch.il.tolist() == pytest.approx([il_of(int(key[1:])) for key in batch.keys])


def test_a_foreign_table_that_lacks_a_key_is_an_error(workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("RHO_CACHE", str(tmp_path / "cache"))
    table = pa.table({"key": [f"s{n}" for n in range(TOTAL - 3)], "il": [0.5] * (TOTAL - 3)})
    Workspace(tmp_path).write_table("foreign.parquet", table)
    with pytest.raises(IrreducibleLossError, match="3 of 12 samples have no finite"):
        list(stream_of(workspace, il=str(tmp_path / "foreign.parquet")))


def overwrite_image(workspace, key, content):
    for shard in CorpusMetadata.read(workspace).shards:
        rows = workspace.read_table(shard.index).to_pylist()
        for row in rows:
            if row["key"] == key:
                with Path(workspace.path(shard.tar)).open("r+b") as tar:
                    tar.seek(row["offset"])
                    tar.write(content[: row["size"]])


def test_an_undecodable_image_is_an_error_or_a_bounded_skip(workspace):
    overwrite_image(workspace, "s50", b"\0" * 10_000)
    with pytest.raises(ShardError, match=r"sample s50 of shard train-000001 cannot be read"):
        list(stream_of(workspace))
    batches = list(stream_of(workspace, read_options=ReadOptions(max_unreadable=1)))
    assert passed_over(batches) == [("s50", "unreadable")]
    assert sorted(keys_of(batches)) == sorted(f"s{n}" for n in range(TOTAL) if n != 50)


def test_a_truncated_tar_is_a_clear_error(workspace):
    with Path(workspace.path("shards/train-000002.tar")).open("r+b") as tar:
        tar.truncate(5000)
    with pytest.raises(ShardError, match=r"train-000002.tar ends at byte 5000, its index expects"):
        list(stream_of(workspace))


def test_augmentation_depends_on_seed_epoch_and_key_alone(workspace):
    def pixels(**settings):
        stream = stream_of(workspace, augmentation="shift_flip", spec=ImageSpec(size=16), **settings)
        return {key: image for batch in stream for key, image in zip(batch.keys, batch.images, strict=True)}, stream

    one, stream = pixels(read_options=ReadOptions(threads=1))
    three, _ = pixels(read_options=ReadOptions(threads=3), super_batch_size=50)
    assert all(torch.equal(one[key], three[key]) for key in one)
    plain = {
        key: image
        for batch in stream_of(workspace, spec=ImageSpec(size=16))
        for key, image in zip(batch.keys, batch.images, strict=True)
    }
    assert sum(not torch.equal(one[key], plain[key]) for key in one) > TOTAL / 2
    second = {key: image for batch in stream for key, image in zip(batch.keys, batch.images, strict=True)}
    assert sum(not torch.equal(one[key], second[key]) for key in one) > TOTAL / 2


@pytest.mark.slow
def test_a_stream_left_early_takes_its_threads_with_it(workspace):
    gc.collect()
    before = set(threading.enumerate())
    stream = stream_of(workspace)
    iterator = iter(stream)
    next(iterator)
    assert set(threading.enumerate()) - before
    iterator.close()
    del iterator, stream
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive(), thread.name


def test_a_stream_can_be_pickled_to_spawned_workers(workspace):
    copy = pickle.loads(pickle.dumps(stream_of(workspace)))
    assert keys_of(copy) == keys_of(stream_of(workspace))


def test_mistakes_in_the_settings_are_named(workspace, tmp_path):
    with pytest.raises(ConfigError, match="at least one candidate"):
        stream_of(workspace, super_batch_size=0)
    with pytest.raises(ConfigError, match="name an IL table"):
        stream_of(workspace, il=None, prefilter=Prefilter())
    with pytest.raises(WorkspaceError, match=r"has no corpus.json: name another workspace, or write the shards"):
        CandidateStream(tmp_path / "nowhere")
