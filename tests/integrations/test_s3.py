"""A workspace in an S3 bucket: a real S3 API on loopback."""

import random
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import remote_store
from helpers.corpus_fixture import write_shapes
from helpers.remote_store import S3, upload
from helpers.shards_corpus import contents, manifest_of, write_corpus
from helpers.tiny import image_of, write_il, write_workspace

from rhostream.cli.main import rho
from rhostream.errors import RhostreamError, ShardError, WorkspaceError
from rhostream.loaders.index.corpus_metadata import CorpusMetadata, read_shard_rows
from rhostream.loaders.storage import retries
from rhostream.loaders.storage.retries import Retries
from rhostream.loaders.storage.shard_reader import ShardReader
from rhostream.loaders.storage.workspace import Workspace
from rhostream.loaders.stream.candidate_stream import CandidateStream
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.shards.write import write_shards
from rhostream.pipeline.sql.database import query

s3, cache, impatient = remote_store.s3, remote_store.cache, remote_store.impatient


class Sometimes:
    """A store that answers a share of all requests with this status."""

    def __init__(self, share: float, status: str = "503 Slow Down") -> None:
        self.share, self.status, self.refused = share, status, 0
        self._random = random.Random(1)

    def __call__(self, environ: dict[str, Any]) -> str | None:
        if self._random.random() > self.share:
            return None
        self.refused += 1
        return self.status


def interrupted_write(stream: IO[bytes]) -> None:
    stream.write(b"half")
    raise KeyboardInterrupt


def objects(s3: S3, prefix: str) -> set[str]:
    found = s3.client.list_objects_v2(Bucket=s3.bucket, Prefix=f"{prefix}/").get("Contents", [])
    return {entry["Key"].removeprefix(f"{prefix}/") for entry in found}


@pytest.mark.parametrize("whole", [True, False])
def test_every_sample_is_read_from_a_store_that_fails_sometimes(
    s3: S3, cache: Path, tmp_path: Path, impatient: Retries, whole: bool
) -> None:
    write_workspace(tmp_path / "w", [6, 5])
    place = Workspace(upload(tmp_path / "w", s3))
    s3.fault = fault = Sometimes(0.3)
    reader, number = ShardReader(place), 0
    for shard in CorpusMetadata.read(place).shards:
        rows = read_shard_rows(place, shard)
        for row in range(shard.rows):
            data = reader.read(shard.tar, int(rows.offsets[row]), int(rows.sizes[row]), whole=whole)
            assert data == image_of(number, (number * 7 + number // 3) % 3)
            number += 1
    assert number == 11
    assert fault.refused >= 3
    assert len(list(cache.glob("*.tar"))) == (2 if whole else 0)


def test_an_unreachable_or_forbidden_bucket_is_a_clear_error(
    s3: S3, cache: Path, tmp_path: Path, impatient: Retries
) -> None:
    write_workspace(tmp_path / "w", [2])
    place = Workspace(upload(tmp_path / "w", s3))
    reader = ShardReader(place)
    s3.fault = Sometimes(1, "500 Internal Server Error")
    with pytest.raises(ShardError, match=rf"{s3.url}/w/shards/train-000000.tar: 4 attempts in \d+ s have failed"):
        reader.read("shards/train-000000.tar", 512, 10)
    with pytest.raises(WorkspaceError, match="4 attempts"):
        CorpusMetadata.read(place)
    with pytest.raises(WorkspaceError, match="4 attempts"):
        place.write_bytes("new", b"x")
    s3.fault = Sometimes(1, "403 Forbidden")
    s3.requests.clear()
    with pytest.raises(ShardError, match=r"access is refused .*check the credentials"):
        reader.read("shards/train-000000.tar", 512, 10)
    assert len(s3.requests) == 1
    s3.fault = lambda environ: None
    assert reader.read("shards/train-000000.tar", 513, 3) == b"PNG", "an error is not remembered"


def test_a_store_that_goes_away_is_waited_for(
    s3: S3, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "RETRIES", Retries(attempts=8, seconds=30.0, pause=0.1, stall=1.0, slowest=1e6))
    local = write_workspace(tmp_path / "w", [7, 5, 6])
    write_il(local)
    place = Workspace(upload(tmp_path / "w", s3))
    expected = [list(batch.keys) for batch in CandidateStream(local, il="strided_cnn", super_batch_size=4, seed=3)]
    with s3.away(1.0):
        stream = CandidateStream(place, il="strided_cnn", super_batch_size=4, seed=3)
        assert [list(batch.keys) for batch in stream] == expected
    with s3.away(1.0):
        place.write_bytes("new", b"x")
    with s3.away(1.0):
        assert query(place, "SELECT count(*) AS n FROM samples").to_pylist() == [{"n": 18}]
    assert place.read_bytes("new") == b"x"


def test_a_store_that_stays_away_is_one_line(s3: S3, cache: Path, impatient: Retries) -> None:
    place = Workspace(f"{s3.url}/w")
    with s3.away(2.0), pytest.raises(WorkspaceError, match=r"4 attempts in \d+ s have failed, the last with .*goes on"):
        place.read_bytes("corpus.json")


@pytest.mark.parametrize("url", ["s3://No_Such!Bucket/w", "s3://a/w", "s3:///w", "s3://"])
def test_a_bad_name_of_a_bucket_is_one_line(s3: S3, url: str, impatient: Retries) -> None:
    for command in (["status"], ["query", "FROM samples"], ["il", "score"]):
        error = CliRunner().invoke(rho, [*command, "--workspace", url]).exception
        assert isinstance(error, RhostreamError) or (command == ["status"] and error is None)
        assert "\n" not in str(error)


def test_a_vanished_and_a_truncated_object_are_clear_errors(s3: S3, cache: Path, tmp_path: Path) -> None:
    write_workspace(tmp_path / "w", [2, 2])
    place = Workspace(upload(tmp_path / "w", s3))
    s3.client.delete_object(Bucket=s3.bucket, Key="w/shards/train-000000.tar")
    s3.client.put_object(Bucket=s3.bucket, Key="w/shards/train-000001.tar", Body=b"\0" * 700)
    reader = ShardReader(place)
    for whole in (False, True):
        with pytest.raises(ShardError, match=r"train-000000.tar has vanished"):
            reader.read("shards/train-000000.tar", 512, 263, whole=whole)
        with pytest.raises(ShardError, match=r"train-000001.tar ends at byte 700, its index expects 263 bytes at 512"):
            reader.read("shards/train-000001.tar", 512, 263, whole=whole)
    with pytest.raises(WorkspaceError, match=r"has no corpus.json: name another workspace, or write the shards"):
        CorpusMetadata.read(Workspace(f"{s3.url}/elsewhere"))


def test_a_write_is_published_whole_or_not_at_all(s3: S3, impatient: Retries) -> None:
    place = Workspace(f"{s3.url}/w")
    place.write_bytes("name", b"old")

    with pytest.raises(KeyboardInterrupt), place.writing("name") as stream:
        interrupted_write(stream)
    assert place.read_bytes("name") == b"old"
    s3.fault = fault = Sometimes(0.3)
    place.write_bytes("name", b"new")
    place.write_json("folder/a.json", {"a": 1})
    assert (place.read_bytes("name"), place.read_json("folder/a.json")) == (b"new", {"a": 1})
    assert place.names("folder", ".json") == ["a.json"]
    assert fault.refused
    s3.fault = lambda environ: None
    place.remove("folder")
    place.remove("folder")
    assert not place.exists("folder")
    assert objects(s3, "w") == {"name"}


def test_shards_are_written_to_a_bucket_as_to_a_folder(s3: S3, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    write_shards(tmp_path / "w", manifest_of(corpus), workers=0)
    place = Workspace(f"{s3.url}/w")
    made = write_shards(place, manifest_of(corpus), workers=2)
    assert made.units_made == made.units == 4
    assert objects(s3, "w") == set(contents(tmp_path / "w"))
    for name in contents(tmp_path / "w"):
        assert place.read_bytes(name) == (tmp_path / "w" / name).read_bytes(), name
    s3.client.delete_object(Bucket=s3.bucket, Key="w/rejects/000001.parquet")
    s3.client.delete_object(Bucket=s3.bucket, Key="w/corpus.json")
    assert write_shards(place, manifest_of(corpus), workers=0).units_made == 1
    assert place.read_bytes("corpus.json") == (tmp_path / "w" / "corpus.json").read_bytes()


def test_the_il_is_trained_and_scored_in_a_bucket(s3: S3, cache: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "w", splits={"train": 40, "holdout": 60, "test": 10}, shard_rows=20)
    url = upload(tmp_path / "w", s3)
    training = ILTrainConfig(model="mlp", name="mlp", steps=2, device="cpu")
    scores = []
    for place in (str(tmp_path / "w"), url):
        train_il(place, training)
        score_il(place, ILScoreConfig(name="mlp", device="cpu"))
        scores.append(Workspace(place).read_table("il/mlp/scores/train-000001.parquet"))
    assert scores[0].equals(scores[1])
    assert {name for name in objects(s3, "w/il/mlp") if "checkpoint" not in name} == {
        name for name in contents(tmp_path / "w" / "il" / "mlp") if "checkpoint" not in name
    }


def test_a_stream_yields_the_same_from_bucket_and_folder(s3: S3, cache: Path, tmp_path: Path) -> None:
    local = write_workspace(tmp_path / "w", [7, 5, 6], test_rows=2)
    write_il(local)
    url = upload(tmp_path / "w", s3)
    seen = []
    for place in (local.location, url):
        stream = CandidateStream(place, il="strided_cnn", super_batch_size=4, seed=3)
        for _ in range(2):
            seen.append([(list(batch.keys), np.asarray(batch.il), np.asarray(batch.images)) for batch in stream])
    for ours, theirs in zip(seen[:2], seen[2:], strict=True):
        assert [keys for keys, _, _ in ours] == [keys for keys, _, _ in theirs]
        for (_, il, images), (_, other_il, other_images) in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(il, other_il)
            np.testing.assert_array_equal(images, other_images)
    assert len(list(cache.glob("*.tar"))) == 3
