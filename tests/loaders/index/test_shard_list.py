"""The list of a corpus's shards: in its card, or of many in a Parquet beside it, which a stream opens at once."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import write_il, write_workspace

from rhostream.errors import WorkspaceError
from rhostream.loaders.index import CorpusMetadata, Shard, ShardList, list_in_card, remove_other_lists, shard_list
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import CandidateStream


def some(count: int, digest: str = "d") -> list[Shard]:
    return [
        Shard(
            name=f"{'train' if number % 3 else 'test'}-{number:06d}",
            split="train" if number % 3 else "test",
            fold=-1,
            rows=number + 1,
            digest=f"{digest}{number}",
            source=f"/tars/{number}.tar" if number % 2 else "",
        )
        for number in range(count)
    ]


@pytest.fixture
def listed_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace of three shards, whose card names the Parquet that lists them."""
    workspace = write_workspace(tmp_path / "w", [5, 6, 7])
    monkeypatch.setattr(shard_list, "_MOST_IN_CARD", 2)
    card, shards = workspace.read_json("corpus.json"), CorpusMetadata.read(workspace).shards
    workspace.write_json("corpus.json", card | {"shards": list_in_card(workspace, shards)})
    return workspace


def test_a_list_gives_back_the_shards_that_it_is_of():
    shards = some(7)
    listed = ShardList.of(shards)
    assert [*listed] == shards
    assert (listed[2], listed[-1]) == (shards[2], shards[-1])
    assert [*listed[1:6:2]] == shards[1:6:2]
    assert [*listed.of_splits("test")] == [shard for shard in shards if shard.split == "test"]
    assert listed.splits == ["test", "train"]
    assert listed.samples == sum(shard.rows for shard in shards)
    assert listed == shards != ShardList.of(shards[1:])


def test_digests_are_those_of_former_releases(monkeypatch: pytest.MonkeyPatch):
    shards = some(7)
    of_lines = hashlib.sha256("".join(f"{shard.name} {shard.digest}\n" for shard in shards).encode()).hexdigest()
    made_of = [8, "clusters/320", *([shard.name, shard.rows, shard.digest] for shard in shards)]
    of_json = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    monkeypatch.setattr(shard_list, "_AT_ONCE", 3)
    assert ShardList.of(shards).fingerprint() == of_lines
    assert ShardList.of(shards).order_digest([8, "clusters/320"]) == of_json


def test_a_corpus_listed_apart_streams_as_any_other(listed_apart: Workspace, tmp_path: Path):
    in_card = write_workspace(tmp_path / "other", [5, 6, 7])
    card = listed_apart.read_json("corpus.json")
    assert card["shards"] == f"shard_lists/{card['fingerprint'][:16]}.parquet"
    assert CorpusMetadata.read(listed_apart) == CorpusMetadata.read(in_card)
    streams = []
    for workspace in (listed_apart, in_card):
        write_il(workspace)
        streams.append(CandidateStream(workspace, il="strided_cnn", super_batch_size=6))
    assert streams[0].order_digest == streams[1].order_digest
    for one, other in zip(*streams, strict=True):
        assert one.keys == other.keys
        assert np.array_equal(one.images, other.images)


def test_a_list_that_is_missing_damaged_or_anothers_is_told(listed_apart: Workspace):
    card = listed_apart.read_json("corpus.json")
    file = Path(listed_apart.path(card["shards"]))
    whole = file.read_bytes()
    file.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(WorkspaceError, match=rf"{file.name} .*write the shards again"):
        CorpusMetadata.read(listed_apart)
    listed_apart.write_table(card["shards"], ShardList.of(some(3)).table())
    with pytest.raises(WorkspaceError, match="not those of its fingerprint"):
        CorpusMetadata.read(listed_apart)
    file.unlink()
    with pytest.raises(WorkspaceError, match=r"corpus.json names a list of shards, .*, which is not there"):
        CorpusMetadata.read(listed_apart)
    listed_apart.write_json("corpus.json", card | {"shards": "../elsewhere.parquet"})
    with pytest.raises(WorkspaceError, match=r"'../elsewhere\.parquet', which is not that of its fingerprint"):
        CorpusMetadata.read(listed_apart)


def test_a_former_list_stays_until_the_new_card_is_there(listed_apart: Workspace):
    former = CorpusMetadata.read(listed_apart)
    shards = ShardList.of(some(4, "other"))
    told = list_in_card(listed_apart, shards)
    assert CorpusMetadata.read(listed_apart) == former
    card = listed_apart.read_json("corpus.json") | {"shards": told, "fingerprint": shards.fingerprint()}
    listed_apart.write_json("corpus.json", card | {"counts": {"entries": 10, "samples": 10, "rejects": 0}})
    remove_other_lists(listed_apart, told)
    assert CorpusMetadata.read(listed_apart).shards == shards
    assert listed_apart.names("shard_lists") == [str(told).rpartition("/")[2]]
