"""Several corpora as one stream."""

from collections import Counter

import pytest
import torch
from helpers.tiny import write_il, write_workspace

from rhostream.errors import ConfigError
from rhostream.loaders import CandidateStream, ImageSpec, MixedStream

SIZES = {"web": (40, 30, 50), "studio": (20, 20)}
TOTAL = 160


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory):
    made = {}
    for name, rows in SIZES.items():
        made[name] = write_workspace(tmp_path_factory.mktemp(name), rows)
        write_il(made[name])
    return made


def corpora(workspaces, **settings):
    return {name: CandidateStream(place, il="strided_cnn", **settings) for name, place in workspaces.items()}


def drawn_of(batches):
    return [
        (shard.split("/")[0], key) for batch in batches for shard, key in zip(batch.shards, batch.keys, strict=True)
    ]


def test_every_sample_of_every_corpus_comes_once_an_epoch(workspaces):
    stream = MixedStream(corpora(workspaces), super_batch_size=32)
    for _ in range(2):
        drawn = drawn_of(stream)
        assert len(drawn) == len(set(drawn)) == TOTAL
        assert Counter(name for name, _ in drawn) == {"web": 120, "studio": 40}


def test_every_super_batch_holds_the_share_of_each_corpus(workspaces):
    stream = MixedStream(corpora(workspaces), weights={"web": 1, "studio": 3}, super_batch_size=32, samples=320)
    seen = Counter()
    for batch in stream:
        shares = Counter(shard.split("/")[0] for shard in batch.shards)
        assert shares == {"web": 8, "studio": 24}
        seen.update(key for shard, key in zip(batch.shards, batch.keys, strict=True) if shard.startswith("studio"))
    assert set(seen.values()) == {6}  # 240 draws of 40 samples: whole epochs of that corpus, one after the other
    # Not one corpus after the other: what comes first is what uniform sampling takes.
    assert len({shard.split("/")[0] for shard in batch.shards[:8]}) == 2


def test_images_labels_and_losses_are_those_of_their_corpus(workspaces):
    for batch in MixedStream(corpora(workspaces), super_batch_size=32):
        numbers = batch.images[:, 0, 0, 0].int() * 256 + batch.images[:, 1, 0, 0].int()
        assert [f"s{number}" for number in numbers.tolist()] == batch.keys
        assert torch.equal(batch.images[:, 2, 0, 0].long(), batch.labels)
        assert batch.il.tolist() == pytest.approx([int(key[1:]) / 100 for key in batch.keys])


def test_ranks_share_out_one_sequence_and_a_state_continues_it(workspaces, monkeypatch):
    def whole(**settings):
        return MixedStream(corpora(workspaces), weights={"web": 2, "studio": 1}, super_batch_size=16, **settings)

    alone = [sorted(drawn_of([batch])) for batch in whole()]
    shared = [[], []]
    for rank in range(2):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        shared[rank] = list(whole())
    monkeypatch.undo()
    assert [sorted(drawn_of(parts)) for parts in zip(*shared, strict=True)] == alone
    stream = whole()
    iterator = iter(stream)
    for _ in range(4):
        state = next(iterator).state
    resumed = whole()
    resumed.load_state_dict(state)
    assert [sorted(drawn_of([batch])) for batch in resumed] == alone[4:]


def test_corpora_that_do_not_fit_are_refused_with_the_difference(workspaces):
    streams = corpora(workspaces)
    other = streams | {"studio": CandidateStream(workspaces["studio"], il="strided_cnn", spec=ImageSpec(size=16))}
    with pytest.raises(ConfigError, match=r"'web' and 'studio' cannot be mixed: their spec differs"):
        MixedStream(other)
    with pytest.raises(ConfigError, match="give each of the corpora"):
        MixedStream(streams, weights={"web": 1})
    with pytest.raises(ConfigError, match="their IL table differs"):
        MixedStream(streams | {"studio": CandidateStream(workspaces["studio"])})
