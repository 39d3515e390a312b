"""The index of a shard: a part that is not the one which corpus.json tells of is refused, and remedies are safe."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.foreign_tars import index, sample, tar
from helpers.shards_corpus import contents, manifest_of, write_corpus
from helpers.tiny import write_il, write_workspace

from rhostream.errors import Remedy, ShardError, Stage, WorkspaceError
from rhostream.loaders import CandidateStream
from rhostream.loaders.index import undecodable
from rhostream.loaders.index.corpus_metadata import SHARD_DIGEST_KEY, CorpusMetadata, read_shard_rows
from rhostream.loaders.index.shard_list import Shard
from rhostream.loaders.storage.shard_reader import ShardReader
from rhostream.loaders.storage.workspace import Workspace
from rhostream.loaders.stream.mixture import MixedStream
from rhostream.loaders.stream.order import Order
from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.shards.write import write_shards
from rhostream.pipeline.thumbnails.write import write_thumbnails


def copied(folder: Path) -> Workspace:
    """Of `rho shards`."""
    write_shards(str(folder / "w"), manifest_of(write_corpus(folder / "corpus")), workers=0)
    return Workspace(folder / "w")


def indexed(folder: Path) -> Workspace:
    """Of `rho index`."""
    for number in range(2):
        members = [m for n in range(20) for m in sample(f"{number}-{n:03d}", str(n % 3), 100 * number + n)]
        if not (folder / f"tars/{number}.tar").exists():
            tar(folder / f"tars/{number}.tar", *members)
    index(folder / "w", folder / "tars")
    return Workspace(folder / "w")


def relabeled(table: pa.Table) -> pa.Table:
    position = table.schema.get_field_index("label")
    labels = pa.array([(label + 1) % 3 for label in table["label"].to_pylist()], pa.int32())
    return table.set_column(position, table.schema.field("label"), labels)


@pytest.mark.parametrize("make", [copied, indexed])
def test_every_index_carries_the_digest_that_corpus_json_tells(
    tmp_path: Path, make: Callable[[Path], Workspace]
) -> None:
    place = make(tmp_path)
    for shard in CorpusMetadata.read(place).shards:
        with place.open(shard.index) as stream:
            assert pq.read_schema(stream).metadata[SHARD_DIGEST_KEY].decode() == shard.digest
        assert len(read_shard_rows(place, shard)) == len(read_shard_rows(place, shard, ("width",))) == shard.rows


@pytest.mark.parametrize("make", [copied, indexed])
def test_an_index_with_other_labels_is_refused_and_made_again(
    tmp_path: Path, make: Callable[[Path], Workspace]
) -> None:
    place = make(tmp_path)
    whole = contents(tmp_path / "w")
    shard = CorpusMetadata.read(place).split("train")[0]
    table = relabeled(place.read_table(shard.index))
    for metadata in ({SHARD_DIGEST_KEY: b"of another run"}, None):
        place.write_table(shard.index, table.replace_schema_metadata(metadata))
        message = (
            r"is not the index that corpus\.json tells of, .* delete it and (write the shards|index the tars) again"
        )
        with pytest.raises(WorkspaceError, match=message):
            read_shard_rows(place, shard)
    Path(place.path(shard.index)).unlink()  # as told
    make(tmp_path)
    assert contents(tmp_path / "w") == whole


def test_an_index_rewritten_under_a_stream_meets_no_old_losses(tmp_path: Path) -> None:
    place = write_workspace(tmp_path, [40] * 6)
    write_il(place)
    stream = CandidateStream(place, il="strided_cnn", super_batch_size=8, order=Order(block_shards=1))
    batches = iter(stream)
    next(batches)
    for shard in CorpusMetadata.read(place).shards:
        table = relabeled(place.read_table(shard.index)).replace_schema_metadata({SHARD_DIGEST_KEY: b"rewritten"})
        place.write_table(shard.index, table)
    with pytest.raises(WorkspaceError, match=r"is not the index that corpus\.json tells of, .*start again"):
        list(batches)


@pytest.mark.parametrize("make", [copied, indexed])
def test_a_damaged_images_remedy_keeps_foreign_tars(tmp_path: Path, make: Callable[[Path], Workspace]) -> None:
    place = make(tmp_path)
    shard = CorpusMetadata.read(place).split("train")[0]
    said = str(undecodable(place, shard, 0, "truncated"))
    assert "restore it, or " in said
    if make is copied:
        assert "overwrite" not in said
        whole = contents(tmp_path / "w")
        Path(place.path(shard.tar)).unlink()  # as told: "delete it and write the shards again"
        make(tmp_path)
        assert contents(tmp_path / "w") == whole
    else:
        assert said.endswith("which makes what is missing (overwrite)")
        before = contents(tmp_path / "tars")
        index(tmp_path / "w", tmp_path / "tars", overwrite=True)
        assert contents(tmp_path / "tars") == before


def test_a_missing_tar_of_thumbnails_names_what_makes_it(tmp_path: Path) -> None:
    place = write_workspace(tmp_path / "w", [8, 8])
    config = ThumbnailsConfig(size=6, format="raw", workers=0)
    write_thumbnails(place, config)
    whole = contents(tmp_path / "w")
    for name in ("thumbnails/6-raw/shards/train-000001.tar", place.path("thumbnails/6-raw/shards/train-000001.tar")):
        Path(place.path(name)).unlink()
        with pytest.raises(ShardError, match="has vanished") as error:
            ShardReader(place).read(name, 0, 10)
        assert "restore it, or make the thumbnails" in str(error.value)
        settings = {"size": "6", "format": "raw", "split": "train"}
        assert error.value.remedies == (Remedy(Stage.THUMBNAILS, f"{tmp_path}/w", settings),)
        write_thumbnails(place, config)
        assert contents(tmp_path / "w") == whole


def test_a_missing_tar_of_a_mixture_names_no_index(tmp_path: Path) -> None:
    places = {name: write_workspace(tmp_path / name, [16]) for name in ("a", "b")}
    streams = {name: CandidateStream(place, super_batch_size=8) for name, place in places.items()}
    mixed = MixedStream(streams, super_batch_size=8)
    shutil.rmtree(tmp_path / "b/shards")
    with pytest.raises(
        ShardError, match=r"b/shards/train-000000\.tar has vanished, .* restore it, or make it and its index again"
    ):
        list(mixed)


def test_a_missing_tar_of_the_workspace_names_rho_shards(tmp_path: Path) -> None:
    place = write_workspace(tmp_path, [4])
    shard: Shard = CorpusMetadata.read(place).shards[0]
    Path(place.path(shard.tar)).unlink()
    with pytest.raises(ShardError, match=r"restore it, or write the shards again with the same settings"):
        ShardReader(place).read(shard.tar, 0, 10)
