"""What `--select auto` is told by the IL table: which labels are wrong, and what to measure on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.tiny import write_il, write_workspace

from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.loaders.index.validation_samples import is_validation_sample
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.il.quality import ILQuality, il_quality
from rhostream.pipeline.models.evaluation import EvaluationSet
from rhostream.pipeline.training.validation_samples import validation_samples, validation_share_of

ROWS = (600, 600)
KEYS = [f"s{number}" for number in range(sum(ROWS))]
HELD = is_validation_sample(KEYS, validation_share_of(sum(ROWS)))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = write_workspace(tmp_path / "w", ROWS)
    write_il(workspace)
    return workspace


def contradict(workspace: Workspace, which: Callable[[int], bool], confidence: Callable[[int], float]) -> None:
    """Have the IL model contradict the labels of these samples, and rule them out; `confidence` by sample."""
    for shard in CorpusMetadata.read(workspace).split("train"):
        table = workspace.read_table(shard.scores("strided_cnn"))
        rows = table.to_pylist()
        for row in rows:
            number = int(row["key"][1:])
            row["confidence"], row["il"] = confidence(number), 0.1
            if which(number):
                row["predicted"], row["il"] = (row["label"] + 1) % 3, 3.0
        workspace.write_table(shard.scores("strided_cnn"), pa.Table.from_pylist(rows, table.schema))


def of(workspace: Workspace, il: str = "strided_cnn") -> tuple[ILQuality, EvaluationSet]:
    corpus = CorpusMetadata.read(workspace)
    quality = il_quality(workspace, corpus, il)
    assert quality is not None
    kept = validation_samples(workspace, corpus, il, quality, corpus.image_spec(), threads=1)
    return quality, kept


def test_labels_contradicted_by_the_most_certain_predictions_are_not_measured(workspace):
    wrong = lambda number: number % 10 == 0  # noqa: E731
    contradict(workspace, wrong, lambda number: (number % 97) / 100)
    quality, kept = of(workspace)
    assert quality.ruled_out == pytest.approx(0.1)
    assert quality.wrong == pytest.approx(0.1, abs=0.02)
    measured = [number for number, held in enumerate(HELD) if held and not wrong(number)]
    assert len(kept) == len(measured)


def test_labels_contradicted_only_by_doubtful_predictions_are_measured(workspace):
    hard = lambda number: number % 10 == 0  # noqa: E731
    contradict(workspace, hard, lambda number: 0.4 if hard(number) else 0.9)
    quality, kept = of(workspace)
    assert (quality.ruled_out, quality.wrong) == (0.0, 0.0)
    assert len(kept) == HELD.sum()


def test_a_table_made_elsewhere_is_not_filtered_by(workspace, tmp_path):
    labels = np.concatenate(
        [workspace.read_table(shard.index)["label"] for shard in CorpusMetadata.read(workspace).split("train")]
    )
    numbers = np.arange(len(KEYS))
    table = {
        "key": KEYS,
        "il": np.where(numbers % 10 == 0, 3.0, 0.1).astype(np.float32),
        "predicted": np.where(numbers % 10 == 0, (labels + 1) % 3, labels).astype(np.int32),
    }
    pq.write_table(pa.table(table), tmp_path / "il.parquet")
    quality, kept = of(workspace, str(tmp_path / "il.parquet"))
    assert (quality.ruled_out, quality.wrong, quality.filters) == (pytest.approx(0.1), None, False)
    assert len(kept) == HELD.sum()
