"""The reference model of image-text pairs: its training, its table of embeddings, and the join in a stream."""

from dataclasses import replace

import duckdb
import pyarrow as pa
import pytest
import torch
from helpers.pair_corpus import REFERENCE, write_pairs, write_pairs_with_reference

from rhostream.errors import ConfigError, IrreducibleLossError
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.stream import CandidateStream, EvaluationStream
from rhostream.pipeline.config import ILScoreConfig
from rhostream.pipeline.explain import explain
from rhostream.pipeline.il import ILMetadata, score_il, train_il
from rhostream.pipeline.models import PairEvaluationSet
from rhostream.pipeline.sql import query
from rhostream.selection.tasks import PairEmbeddings, Pairs


def train_config(**settings):
    return replace(REFERENCE, **settings)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return write_pairs_with_reference(tmp_path_factory.mktemp("il") / "w")


@pytest.mark.slow
def test_reference_model_learns_which_caption_an_image_has(workspace):
    metadata = ILMetadata.read(workspace, "small_clip")
    before, last = metadata.models[0].evaluations[0], metadata.models[0].best
    assert last.validation_loss < 0.9 * before.validation_loss
    assert last.validation_accuracy == max(each.validation_accuracy for each in metadata.models[0].evaluations)
    corpus = CorpusMetadata.read(workspace)
    held = PairEvaluationSet(
        workspace, corpus.split("test"), metadata.spec, metadata.text_spec, task=Pairs(loss="softmax")
    )
    found = held.evaluate(metadata.load(workspace, metadata.models[0]), torch.device("cpu"))
    assert found.recall["image_to_text_r10"] > 0.5  # chance: a quarter
    assert found.samples == 40


@pytest.mark.slow
def test_training_ends_where_every_caption_is_found(tmp_path):
    workspace = write_pairs(tmp_path, 20, holdout=60)
    metadata = train_il(workspace, train_config(steps=0, validation_samples=8, batch_size=16)).metadata
    evaluations = metadata.models[0].evaluations
    assert [each.validation_accuracy for each in evaluations] == [1.0] * 2  # one of eight is among the first ten


@pytest.mark.slow
def test_training_ends_where_a_few_pairs_are_known_by_heart(tmp_path):
    """Eight pairs teach nothing of 300 others, all of whose captions are wrong besides."""
    workspace = write_pairs(tmp_path, 300, holdout=8, wrong=1.0)
    settings = train_config(model="tiny_clip", steps=0, batch_size=8, learning_rate=2e-2)
    trained = train_il(workspace, settings)
    evaluations = trained.metadata.models[0].evaluations
    misses = [1 - each.validation_accuracy for each in evaluations]
    assert min(misses) > 0.9 * misses[0]
    assert evaluations[-1].train_accuracy >= 0.99
    assert evaluations[-1].step < 1_000
    (warning,) = trained.warnings
    assert "too weak to select by" in warning
    assert "it had 8" in warning
    assert "validation_recall" in trained.to_dict()["models"][0]


@pytest.mark.slow
def test_a_reference_model_that_has_learnt_is_not_warned_of(workspace):
    assert train_il(workspace, REFERENCE).warnings == []


@pytest.mark.slow
def test_wrong_captions_rank_low_in_the_table(workspace):
    scores, index = (workspace.path(name) for name in ("il/small_clip/scores", "index"))
    rows = duckdb.sql(
        f"SELECT mismatched, avg(rank / compared) AS rank, avg(il) AS il FROM read_parquet('{scores}/*.parquet') "
        f"JOIN read_parquet('{index}/train*.parquet') USING (key) GROUP BY mismatched ORDER BY mismatched"
    ).fetchall()
    (_, right, il_right), (_, wrong, il_wrong) = rows
    assert wrong > 1.5 * right
    assert il_wrong > il_right


@pytest.mark.slow
def test_explain_lists_likely_mismatches_with_precision_and_recall(workspace):
    rows = explain(workspace, "mislabeled").to_pylist()
    assert [row["beaten_by"] for row in rows] == sorted((row["beaten_by"] for row in rows), reverse=True)
    share = sum(row["mismatched"] for row in rows) / len(rows)
    assert rows[19]["precision"] > 1.5 * share
    assert rows[-1]["recall"] == 1
    with pytest.raises(ConfigError, match="have none"):
        explain(workspace, "classes")


def test_views_of_pairs_without_a_table_are_empty(tmp_path):
    found = query(write_pairs(tmp_path, 20), "SELECT similarity, image_embedding FROM il")
    assert found.num_rows == 0


@pytest.mark.slow
def test_streamed_embeddings_are_those_of_the_model(workspace):
    metadata = ILMetadata.read(workspace, "small_clip")
    model = metadata.load(workspace, metadata.models[0])
    batch = next(iter(CandidateStream(workspace, il="small_clip", super_batch_size=30)))
    with torch.no_grad():
        own = PairEmbeddings.of(Pairs().outputs(model, batch.normalized()))
    stored = PairEmbeddings.of_reference(batch)
    assert stored is not None
    assert torch.allclose(stored.losses("softmax"), own.losses("softmax"), atol=0.05)
    assert batch.image_embedding.dtype == torch.float16
    assert not {"image_embedding", "text_embedding"} & {*batch.extra}


@pytest.mark.slow
def test_ranks_join_the_embeddings_of_the_whole_super_batch(workspace):
    settings = {"il": "small_clip", "super_batch_size": 30}
    alone = next(iter(CandidateStream(workspace, **settings)))
    part = next(iter(CandidateStream(workspace, dp_rank=1, dp_world_size=2, **settings)))
    assert torch.equal(part.part.whole.text_embedding, alone.text_embedding)
    assert torch.equal(part.image_embedding, alone.image_embedding[torch.from_numpy(part.part.positions)])


@pytest.mark.slow
def test_training_and_scoring_again_changes_no_byte(workspace):
    files = [f"il/small_clip/scores/{name}" for name in workspace.names("il/small_clip/scores")]
    before = {name: workspace.read_bytes(name) for name in files}
    assert train_il(workspace, train_config()).already_trained
    score_il(workspace, ILScoreConfig(device="cpu", overwrite=True))
    assert {name: workspace.read_bytes(name) for name in files} == before


@pytest.mark.slow
def test_sigmoid_loss_tells_a_bias_and_learns_too(tmp_path):
    workspace = write_pairs(tmp_path, 60, holdout=120)
    train_il(workspace, train_config(contrastive_loss="sigmoid", steps=20))
    found = ILMetadata.read(workspace, "small_clip")
    assert found.pairs is not None
    assert (found.pairs.loss, found.pairs.bias < 0) == ("sigmoid", True)
    first, *_, last = found.models[0].evaluations
    assert last.validation_loss < first.validation_loss


@pytest.mark.slow
def test_table_of_a_changed_width_is_refused(tmp_path):
    workspace = write_pairs(tmp_path, 40, holdout=40)
    train_il(workspace, train_config(steps=2))
    score_il(workspace, ILScoreConfig(device="cpu"))
    (name,) = workspace.names("il/small_clip/scores")
    table = workspace.read_table(f"il/small_clip/scores/{name}")
    column = table["text_embedding"].to_pylist()
    column[0] = column[0][:-1]
    at = table.column_names.index("text_embedding")
    changed = table.set_column(at, table.schema.field(at), pa.array(column, table.schema.field(at).type))
    workspace.write_table(f"il/small_clip/scores/{name}", changed)
    with pytest.raises(IrreducibleLossError, match="not all of one length"):
        next(iter(CandidateStream(workspace, il="small_clip", super_batch_size=10)))


def test_folds_of_pairs_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be compared"):
        write_pairs(tmp_path, 20, folds=2, holdout=5)


@pytest.mark.slow
def test_evaluation_stream_tells_the_captions_of_what_it_chose(workspace):
    chosen = EvaluationStream(workspace, "train", at_most=20)
    assert len(chosen.captions) == 20
    whole = EvaluationStream(workspace, "train")
    assert {*chosen.captions} <= {*whole.captions}
