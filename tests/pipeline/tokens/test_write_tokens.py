"""Token ids beside the shards."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.shards_corpus import contents
from helpers.texts import write_texts
from helpers.tiny import write_workspace

from rhostream.errors import ConfigError, WorkspaceError
from rhostream.loaders.decode import TextSpec
from rhostream.loaders.index import CorpusMetadata, tokens_part
from rhostream.loaders.stream import CandidateStream, MixedStream
from rhostream.pipeline.config import TokenizeConfig
from rhostream.pipeline.tokens import write_tokens

CONFIG = TokenizeConfig(workers=0)


@pytest.fixture
def workspace(tmp_path):
    return write_texts(tmp_path, 150, shard_size=60)


def batches(workspace, **settings):
    return list(CandidateStream(workspace, super_batch_size=16, **settings))


def test_stored_tokens_give_the_stream_that_texts_give(workspace):
    read = batches(workspace)
    summary = write_tokens(workspace, CONFIG)
    assert summary.shards == summary.shards_made == len(CorpusMetadata.read(workspace).split("train"))
    stored = batches(workspace)
    assert [batch.keys for batch in stored] == [batch.keys for batch in read]
    assert all(torch.equal(a.fields["text"], b.fields["text"]) for a, b in zip(stored, read, strict=True))
    with pytest.raises(ConfigError, match="texts=True"):
        stored[0].texts  # noqa: B018 - it raises
    both = batches(workspace, texts=True)
    assert [batch.texts for batch in both] == [batch.texts for batch in read]


def test_tokens_of_another_length_are_not_read(workspace):
    write_tokens(workspace, CONFIG)
    assert len(batches(workspace, spec=TextSpec(length=5))[0].texts) == 16


def test_tokenizing_again_makes_what_is_missing_alone(workspace):
    write_tokens(workspace, CONFIG)
    shard = CorpusMetadata.read(workspace).split("train")[0]
    part = tokens_part("32-words", shard.name)
    before = workspace.read_bytes(part)
    workspace.remove(part)
    with pytest.raises(WorkspaceError, match="is missing"):
        batches(workspace)
    assert write_tokens(workspace, CONFIG).shards_made == 1
    assert workspace.read_bytes(part) == before


@pytest.mark.slow
def test_two_static_jobs_store_what_one_process_stores(tmp_path, workspace, monkeypatch):
    alone = write_texts(tmp_path / "alone", 150, shard_size=60)
    write_tokens(alone, CONFIG)
    monkeypatch.setenv("WORLD_SIZE", "2")
    made = []
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        made.append(write_tokens(workspace, replace(CONFIG, engine="static")).shards_made)
    assert min(made) > 0
    assert contents(Path(workspace.root) / "tokens") == contents(Path(alone.root) / "tokens")


def test_mixed_texts_come_with_tokens_of_each(tmp_path, workspace):
    other = write_texts(tmp_path / "other", 100)
    write_tokens(workspace, CONFIG)
    streams = {"a": CandidateStream(workspace), "b": CandidateStream(other)}
    batch = next(iter(MixedStream(streams, super_batch_size=20)))
    assert len(batch.texts) == 20
    assert (batch.fields["text"][:, 0] >= 0).all()


def test_images_are_not_tokenized(tmp_path):
    with pytest.raises(ConfigError, match="not texts"):
        write_tokens(write_workspace(tmp_path, [4]), CONFIG)
