"""Where a stream is, told and resumed: in this process, in workers of a DataLoader, by ranks in spawned processes."""

import itertools
import json
import pickle

import pytest
import torch
from helpers import forked
from helpers.streams import network, refuses
from helpers.tiny import write_il, write_workspace
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from rhostream.errors import ConfigError, ShardError
from rhostream.loaders import CandidateStream, CorpusMetadata, ReadOptions
from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.thumbnails.write import write_thumbnails
from rhostream.selection import OnlineSelector
from rhostream.selection.ledger.ledger import Ledger

ROWS, TOTAL = (60, 40, 60), 160


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    made = write_workspace(tmp_path_factory.mktemp("w"), ROWS, side=16)
    write_il(made)
    write_thumbnails(made, ThumbnailsConfig(size=8, format="raw", workers=0))
    return made


def stream_of(workspace, **settings):
    return CandidateStream(workspace, il="strided_cnn", super_batch_size=20, **settings)


def keys_of(batches):
    return [key for batch in batches for key in batch.keys]


@pytest.mark.parametrize("workers", [None, 0, 2])
def test_a_selector_on_thumbnails_leaves_the_stream_at_its_batch(workspace, workers):
    def made():
        stream = stream_of(workspace, thumbnails="8-raw", read_options=ReadOptions(threads=1))
        return stream if workers is None else StatefulDataLoader(stream, batch_size=None, num_workers=workers)

    source = made()
    selector = OnlineSelector(network(), batch_size=4)
    seen = [key for batch in itertools.islice(selector(source), 3) for key in batch.super_batch.keys]
    state = source.state_dict()
    resumed = made()
    resumed.load_state_dict(state)
    seen += [key for batch in OnlineSelector(network(), batch_size=4)(resumed) for key in batch.super_batch.keys]
    assert seen == keys_of(stream_of(workspace))


def test_the_main_process_cannot_tell_the_position_of_reading_workers(workspace):
    stream = stream_of(workspace)
    loader = DataLoader(stream, batch_size=None, num_workers=2)
    batch = next(iter(loader))
    with pytest.raises(ConfigError, match="save the `state` of the last SuperBatch"):
        stream.state_dict()
    with refuses(ConfigError, match="epoch 0 has been streamed already, or a part of it"):
        next(iter(loader))
    stream.load_state_dict(batch.state)
    assert batch.keys + keys_of(loader) == keys_of(stream_of(workspace))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_customary_set_epoch_after_loading_keeps_the_place(workspace, workers):
    first = next(iter(stream_of(workspace)))
    stream = stream_of(workspace)
    source = DataLoader(stream, batch_size=None, num_workers=workers) if workers else stream
    stream.load_state_dict(first.state)
    stream.set_epoch(0)
    assert first.keys + keys_of(source) == keys_of(stream_of(workspace))
    stream.set_epoch(0)
    assert keys_of(source) == keys_of(stream_of(workspace))


def _keys_of_rank(made, rank, told):
    stream = pickle.loads(made)
    torch.distributed.init_process_group("gloo", init_method=f"file://{told}/meeting", rank=rank, world_size=2)
    loader = DataLoader(stream, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    (told / str(rank)).write_text(json.dumps(keys_of(loader)))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_spawned_workers_know_the_rank_of_their_parent(workspace, tmp_path):
    made = pickle.dumps(stream_of(workspace))
    ranks = [forked.begin(_keys_of_rank, (made, rank, tmp_path)) for rank in range(2)]
    for process in ranks:
        process.join(120)
    keys = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(2)]
    assert len(keys[0]) == len(keys[1]) == TOTAL / 2
    assert sorted(keys[0] + keys[1]) == sorted(f"s{number}" for number in range(TOTAL))


def test_a_corpus_smaller_than_a_super_batch_is_given_whole(workspace):
    stream = CandidateStream(workspace, super_batch_size=200)
    assert [(len(batch), batch.size) for batch in stream] == [(TOTAL, TOTAL)]
    assert (len(stream), stream.dropped) == (1, 0)


def test_what_is_mended_can_be_read_by_the_same_stream(workspace):
    shard = CorpusMetadata.read(workspace).split("train")[0]
    part = workspace.read_bytes(shard.scores("strided_cnn"))
    workspace.remove(shard.scores("strided_cnn"))
    stream = stream_of(workspace)
    with pytest.raises(Exception, match="has no part for shard"):
        list(stream)
    workspace.write_bytes(shard.scores("strided_cnn"), part)
    stream.set_epoch(0)
    assert len(keys_of(stream)) == TOTAL


@pytest.mark.slow
def test_the_bound_on_unreadable_full_images_holds_behind_workers_too(tmp_path):
    workspace = write_workspace(tmp_path / "w", (60,), side=16)
    write_il(workspace)
    write_thumbnails(workspace, ThumbnailsConfig(size=8, format="raw", workers=0))
    shard = CorpusMetadata.read(workspace).shards[0]
    with open(workspace.path(shard.tar), "r+b") as tar:  # noqa: PTH123
        for row in workspace.read_table(shard.index).to_pylist():
            tar.seek(row["offset"])
            tar.write(b"\0" * row["size"])

    def taken(workers, allowed):
        stream = CandidateStream(
            workspace,
            il="strided_cnn",
            super_batch_size=20,
            thumbnails="8-raw",
            read_options=ReadOptions(threads=1, max_unreadable=allowed),
        )
        source = DataLoader(stream, batch_size=None, num_workers=workers) if workers else stream
        ledger = Ledger(workspace, f"run{workers}", overwrite=True)
        list(OnlineSelector(network(), batch_size=4, ledger=ledger)(source))
        ledger.flush()

    for workers in (0, 2):
        with pytest.raises(ShardError, match="6 so far in this epoch, 5 are allowed"):
            taken(workers, 5)
        taken(workers, 12)
        rows = [
            row
            for name in workspace.names(f"runs/run{workers}/ledger")
            for row in workspace.read_table(f"runs/run{workers}/ledger/{name}").to_pylist()
        ]
        assert sorted({row["reason"] for row in rows}) == ["too_few", "unreadable"]
        assert sum(row["reason"] == "unreadable" for row in rows) == 12
        assert all(row["loss"] is not None and row["score"] is not None for row in rows)


def test_two_workspaces_of_one_relative_name_are_not_mixed_up(tmp_path, monkeypatch):
    for name in ("one", "two"):
        write_workspace(tmp_path / name / "w", (20,) if name == "one" else (0, 20))
    monkeypatch.chdir(tmp_path / "one")
    first = CandidateStream("w", super_batch_size=20)
    kept = next(iter(first))
    monkeypatch.chdir(tmp_path / "two")
    second = next(iter(CandidateStream("w", super_batch_size=20)))
    assert sorted(kept.keys) == sorted(second.keys)
    (tmp_path / "one" / "w" / "shards" / "train-000000.tar").unlink()
    assert len(next(iter(CandidateStream("w", super_batch_size=20)))) == 20
