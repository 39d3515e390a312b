"""Bytes that change under the stream without an error of the file system or the decoder."""

from pathlib import Path

import pytest
from helpers.shards_corpus import manifest_of, samples, write_corpus
from helpers.streams import passed_over

from rhostream.errors import ShardError
from rhostream.loaders import CandidateStream, Order, ReadOptions
from rhostream.loaders.decode.rgb import decode_rgb
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.shards.write import write_shards


@pytest.fixture
def workspace(tmp_path):
    write_shards(tmp_path / "w", manifest_of(write_corpus(tmp_path / "corpus")), workers=0)
    return Workspace(tmp_path / "w")


def garble(workspace: Workspace) -> str:
    """Eight bytes inside the picture data of one JPEG of the training split, which decode without a complaint."""
    rows = [row for row in samples(Path(workspace.root)) if row["split"] == "train"]
    for row in rows:
        with Path(workspace.path(f"shards/{row['shard']}.tar")).open("r+b") as tar:
            tar.seek(row["offset"])
            data = bytearray(tar.read(row["size"]))
            middle = len(data) * 3 // 4
            data[middle : middle + 8] = bytes(byte ^ 0x11 for byte in data[middle : middle + 8])
            if b"\xff" in data[middle - 2 : middle + 10]:
                continue  # a marker: the decoder would see it
            decode_rgb(bytes(data))
            tar.seek(row["offset"])
            tar.write(data)
        return row["key"]
    raise AssertionError("no JPEG to garble")


def stream_of(workspace, **settings):
    read_options = ReadOptions(threads=1, **settings)
    return CandidateStream(workspace, super_batch_size=10, order=Order(last="keep"), read_options=read_options)


def test_silent_corruption_is_found_when_a_sample_is_first_read(workspace):
    key = garble(workspace)
    with pytest.raises(ShardError, match=rf"sample {key} of shard train-\d+ cannot be read .*its bytes are not"):
        list(stream_of(workspace))
    batches = list(stream_of(workspace, max_unreadable=1))
    assert passed_over(batches) == [(key, "unreadable")]


def test_verification_can_be_switched_off(workspace):
    key = garble(workspace)
    assert key in [key for batch in stream_of(workspace, verify=False) for key in batch.keys]


def test_a_sample_is_compared_once_and_by_every_new_stream(workspace):
    stream = stream_of(workspace)
    whole = [sorted(batch.keys) for batch in stream]
    key = garble(workspace)
    assert key in [key for batch in stream for key in batch.keys]
    with pytest.raises(ShardError, match=key):
        list(stream_of(workspace))
    assert sum(map(len, whole)) == len(set().union(*whole))


def test_shards_unread_before_a_resume_are_compared_after_it(workspace):
    first = iter(stream_of(workspace))
    state = next(first).state
    key = garble(workspace)
    resumed = stream_of(workspace)
    resumed.load_state_dict(state)
    with pytest.raises(ShardError, match=key):
        [list(resumed) for _ in range(2)]  # the rest of this epoch, or what came before it in the next
