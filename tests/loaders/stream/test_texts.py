"""Texts in the stream: raw strings, token ids, order and resume."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.texts import write_texts

from rhostream.errors import ConfigError, ShardError
from rhostream.loaders.decode import NO_TOKEN, ImageSpec, TextSpec
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.stream import CandidateStream, EvaluationStream


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("texts"), 200, shard_size=60)


def stream_of(workspace, **settings):
    return CandidateStream(workspace, super_batch_size=16, **settings)


def test_super_batch_has_raw_texts_and_their_tokens(workspace):
    batch = next(iter(stream_of(workspace)))
    assert len(batch.texts) == len(batch) == 16
    words = [text.split() for text in batch.texts]
    ids = batch.fields["text"]
    assert ids.shape == (16, min(32, max(map(len, words))))
    assert [int((row != NO_TOKEN).sum()) for row in ids] == [min(32, len(each)) for each in words]
    same = {word: int(ids[row, place]) for row, each in enumerate(words) for place, word in enumerate(each[:32])}
    assert len(set(same.values())) == len(same)


def test_normalized_batch_is_padded_to_its_longest(workspace):
    batch = next(iter(stream_of(workspace))).take(np.array([2, 5])).normalized()
    lengths = batch.fields["attention_mask"].sum(1)
    assert batch.fields["input_ids"].shape == (2, int(lengths.max()))
    assert batch.fields["input_ids"].dtype == batch.fields["attention_mask"].dtype == torch.int64
    assert (batch.fields["input_ids"][batch.fields["attention_mask"] == 0] == 0).all()
    assert [len(text.split()) for text in batch.texts] == lengths.tolist()


def test_stream_of_texts_resumes_at_the_next_super_batch(workspace):
    whole = [(batch.keys, batch.texts) for batch in stream_of(workspace)]
    first = stream_of(workspace)
    batches = iter(first)
    state = [next(batches) for _ in range(3)][-1].state
    second = stream_of(workspace)
    second.load_state_dict(state)
    assert [(batch.keys, batch.texts) for batch in second] == whole[3:]


def test_function_of_the_user_tokenizes(workspace):
    spec = TextSpec(tokenizer=lambda texts: [[len(word) for word in text.split()] for text in texts], length=8)
    batch = next(iter(stream_of(workspace, spec=spec)))
    assert batch.fields["text"].shape == (16, 8)
    assert batch.fields["text"][0, 0] == len(batch.texts[0].split()[0])


def test_evaluation_stream_gives_tokens_of_each_text(workspace):
    pairs = list(EvaluationStream(workspace, "test"))
    assert len(pairs) == 60
    inputs, label = pairs[0]
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape
    assert inputs["attention_mask"].all()
    assert label in (0, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spec": ImageSpec()}, "give a TextSpec"),
        ({"augmentation": "shift"}, "not images"),
        ({"thumbnails": "64-jpeg"}, "not images"),
    ],
)
def test_setting_of_images_is_refused_for_texts(workspace, settings, message):
    with pytest.raises(ConfigError, match=message):
        stream_of(workspace, **settings)


def test_damaged_text_is_an_error_that_names_it(tmp_path):
    workspace = write_texts(tmp_path, 60)
    for shard in CorpusMetadata.read(workspace).split("train"):
        row = workspace.read_table(shard.index, ["offset"]).to_pylist()[0]
        with Path(workspace.path(shard.tar)).open("r+b") as tar:
            tar.seek(row["offset"])
            tar.write(b"#")
    with pytest.raises(ShardError, match="not those that the index describes"):
        list(CandidateStream(workspace, super_batch_size=1))
