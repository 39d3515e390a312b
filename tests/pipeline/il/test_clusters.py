"""Clusters of pairs: made once, streamed within, and each given its share."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from helpers.pair_corpus import write_pairs
from helpers.pairs import Towers, pairs_super_batch

import rhostream as rho
from rhostream.errors import ConfigError, WorkspaceError
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.stream import CandidateStream, Order
from rhostream.loaders.stream.order import within_groups
from rhostream.pipeline.config import ClusterConfig, ILScoreConfig, ILTrainConfig, TrainConfig
from rhostream.pipeline.explain import Options, explain
from rhostream.pipeline.il import score_il, train_il, write_clusters
from rhostream.pipeline.report import workspace_status, write_report
from rhostream.pipeline.sql import query
from rhostream.pipeline.training import train

CLUSTERS, SIZE = 4, 20


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = write_pairs(tmp_path_factory.mktemp("clusters"), 240, wrong=0.4, holdout=80, shard_size=60)
    train_il(workspace, ILTrainConfig(model="tiny_clip", steps=10, batch_size=64, device="cpu"))
    score_il(workspace, ILScoreConfig(device="cpu"))
    write_clusters(workspace, ClusterConfig(count=CLUSTERS))
    return workspace


def stream_of(workspace, **settings):
    usual = {"super_batch_size": SIZE, "clusters": "kmeans", "order": Order(within_clusters=True)}
    return CandidateStream(workspace, **usual | settings)


@pytest.mark.slow
def test_clusters_are_made_once_and_again_to_the_same_bytes(workspace):
    names = workspace.names("clusters/kmeans/rows", ".parquet")
    before = {name: workspace.read_bytes(f"clusters/kmeans/rows/{name}") for name in names}
    again = write_clusters(workspace, ClusterConfig(count=CLUSTERS))
    assert again.already_made
    assert sum(again.sizes) == 240
    assert min(again.sizes) > 0
    write_clusters(workspace, ClusterConfig(count=CLUSTERS), overwrite=True)
    assert {name: workspace.read_bytes(f"clusters/kmeans/rows/{name}") for name in names} == before
    assert workspace_status(workspace).clusters == ("kmeans",)
    with pytest.raises(WorkspaceError, match="were made"):
        write_clusters(workspace, ClusterConfig(count=3))


def write_embeddings(workspace, folder):
    """Those of the images that the reference table holds, as another model's would come."""
    folder.mkdir()
    for shard in CorpusMetadata.read(workspace).split("train"):
        table = workspace.read_table(shard.scores("tiny_clip"), ["key", "image_embedding"])
        pq.write_table(table.rename_columns(["key", "embedding"]), folder / f"{shard.name}.parquet")
    return ClusterConfig(name="files", count=CLUSTERS, embeddings=str(folder))


@pytest.mark.slow
def test_embeddings_of_any_model_are_clustered(workspace, tmp_path):
    config = write_embeddings(workspace, tmp_path / "base")
    found = write_clusters(workspace, config)
    assert (found.il, found.of, sum(found.sizes)) == ("base", "embedding", 240)
    rows = query(workspace, "SELECT clustering, key, cluster FROM clusters ORDER BY key").to_pylist()
    by_table, by_files = ([row["cluster"] for row in rows if row["clustering"] == name] for name in ("kmeans", "files"))
    assert by_files == by_table
    first = tmp_path / "base" / "train-000000.parquet"
    table = pq.read_table(first)
    pq.write_table(table.set_column(1, "embedding", pc.list_slice(table["embedding"], 0, 8)), first)
    with pytest.raises(WorkspaceError, match="clusters 'files' were made"):
        write_clusters(workspace, config)
    wide = table["embedding"].cast(pa.large_list(pa.float32()))
    pq.write_table(table.set_column(1, "embedding", wide), first)
    assert sum(write_clusters(workspace, config, overwrite=True).sizes) == 240
    spoiled = [
        (table.take(list(reversed(range(len(table))))), r"other keys than the \d+ of shard train-000000"),
        (
            table.set_column(1, "embedding", pa.array([[np.nan]] * len(table))),
            "several lengths, of none, or that are not finite",
        ),
        (
            table.set_column(1, "embedding", pa.array([[1.0], *[[1.0, 2.0]] * (len(table) - 1)])),
            "several lengths, of none, or that are",
        ),
        (table.set_column(1, "embedding", table["key"]), "no lists of numbers"),
        (table.set_column(1, "embedding", pa.array([["1"]] * len(table))), "no lists of numbers"),
        (table.set_column(1, "embedding", pa.array([[]] * len(table), pa.list_(pa.float32()))), "of none"),
        (table.set_column(1, "embedding", pa.array([[1.0, 2.0]] * len(table))), "of 2 in others|of 2 numbers in some"),
        (table.select(["key"]), "embedding"),
    ]
    for other, message in spoiled:
        pq.write_table(other, first)
        with pytest.raises(WorkspaceError, match=message):
            write_clusters(workspace, config, overwrite=True)
    first.unlink()
    with pytest.raises(WorkspaceError, match=r"train-000000\.parquet"):
        write_clusters(workspace, config, overwrite=True)
    with pytest.raises(ConfigError, match="leave il and of out"):
        ClusterConfig(embeddings="base", of="text")


@pytest.mark.slow
def test_super_batches_are_of_one_cluster_and_lose_no_pair(workspace):
    stream = stream_of(workspace)
    batches = list(stream)
    assert {key for batch in batches for key in batch.keys} == {
        row["key"] for row in query(workspace, "SELECT key FROM samples WHERE split = 'train'").to_pylist()
    }
    sizes = np.bincount(np.concatenate([batch.extra["cluster"] for batch in batches]))
    pure = sum(len({*batch.extra["cluster"]}) == 1 for batch in batches)
    assert pure >= sum(sizes // SIZE) - 1
    mixed = stream_of(workspace, order=Order())
    assert pure > sum(len({*batch.extra["cluster"]}) == 1 for batch in mixed)


@pytest.mark.slow
def test_a_stream_within_clusters_goes_on_where_it_was(workspace):
    whole = [tuple(batch.keys) for batch in stream_of(workspace)]
    stream = stream_of(workspace)
    batches = iter(stream)
    third = [next(batches) for _ in range(3)][-1]
    again = stream_of(workspace)
    again.load_state_dict(third.state)
    assert [tuple(batch.keys) for batch in again] == whole[3:]
    of_rank = [tuple(batch.part.whole.keys) for batch in stream_of(workspace, dp_rank=1, dp_world_size=2)]
    assert of_rank == whole
    with pytest.raises(WorkspaceError, match="order"):
        stream_of(workspace, super_batch_size=30).load_state_dict(third.state)


@pytest.mark.parametrize("seed", range(6))
def test_rows_within_groups_are_all_there_in_whole_runs(seed):
    chance = np.random.default_rng(seed)
    groups = chance.integers(0, 5, chance.integers(1, 200)).astype(np.int32)
    rows, first, size = chance.permutation(len(groups)), int(chance.integers(0, 50)), int(chance.integers(1, 25))
    found = within_groups(rows, groups, first=first, size=size, stream=(seed,))
    assert sorted(found.tolist()) == list(range(len(groups)))
    head = min(-first % size, len(found))
    runs = [found[at : at + size] for at in range(head, len(found) - size + 1, size)]
    wanted = min(sum(count // size for count in Counter(groups.tolist()).values()), len(runs))
    assert sum(len({*groups[run]}) == 1 for run in runs) >= wanted


@pytest.mark.slow
def test_floor_gives_every_cluster_its_share(workspace):
    settings = {
        "model": "tiny_clip", "batch_size": 30, "super_batch_size": 120, "steps": 6, "device": "cpu",
        "tensorboard": False, "select": "easy_reference",
    }  # fmt: skip
    for name, own in (("floored", {"clusters": "kmeans", "cluster_floor": 1.0}), ("free", {})):
        train(workspace, TrainConfig(name=name, **own, **settings))
    off = {}
    for name in ("floored", "free"):
        rows = explain(workspace, "classes", options=Options(run=name)).to_pylist()
        assert {row["cluster"] for row in rows} == set(range(CLUSTERS))
        off[name] = max(abs(row["selection_rate"] - 0.25) for row in rows)
    assert off["floored"] < 0.05 < off["free"]
    assert "cluster" in explain(workspace, "skipped", options=Options(run="free")).column_names


@pytest.mark.slow
def test_the_report_tells_of_clusters(workspace, tmp_path):
    data = write_report(workspace, str(tmp_path / "report.html"))
    assert {row["class"] for row in data.answers["classes"].rows} == {f"cluster {at}" for at in range(CLUSTERS)}
    page = (tmp_path / "report.html").read_text()
    assert "Clusters: noise and selection" in page


def test_floor_of_clusters_that_nobody_joins_is_refused():
    select = rho.SelectionConfig(function="hard_learner", batch_size=8, cluster_floor=0.5)
    with pytest.raises(ConfigError, match="give the stream their name"):
        rho.OnlineSelector(Towers(), select=select, task=rho.Pairs()).select(pairs_super_batch())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"within_clusters": True}, "within_clusters True alone changes nothing: give clusters, too"),
        ({"cluster_floor": 0.5}, "cluster_floor 0.5 alone changes nothing: give clusters, too"),
        ({"clusters": "k"}, "clusters 'k' alone changes nothing: give within_clusters or cluster_floor, too"),
        ({"prompts": ("a {}",)}, "alone changes nothing: give zero_shot"),
        ({"clusters": "c", "within_clusters": True, "cluster_floor": 0.5}, "no others to spare"),
    ],
)
def test_settings_of_clusters_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings)
