"""What an IL table says of itself: how much it knows, which labels look wrong, and where filtering would do harm."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from helpers.corpus_fixture import write_shapes
from helpers.tiny import write_il, write_workspace

from rhostream.cli.main import rho
from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.loaders.reference.prefilter import Prefilter
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.il.quality import ILQuality, il_quality

CLASSES = 3


def table_of(
    folder: Path, scored: Any, prefilter: Prefilter | None = None, label: Callable[[int], int] | None = None
) -> ILQuality:
    """Of 900 samples; `scored` gives IL, predicted and confidence of each by its number and label."""
    workspace = write_workspace(folder, (300, 600))
    if label is not None:
        _relabel(workspace, label)
    write_il(workspace)
    for shard in CorpusMetadata.read(workspace).split("train"):
        table = workspace.read_table(shard.scores("strided_cnn"))
        rows = table.to_pylist()
        for row in rows:
            row["il"], row["predicted"], row["confidence"] = scored(int(row["key"][1:]), row["label"])
        workspace.write_table(shard.scores("strided_cnn"), pa.Table.from_pylist(rows, table.schema))
    found = il_quality(workspace, CorpusMetadata.read(workspace), "strided_cnn", prefilter)
    assert found is not None
    return found


def _relabel(workspace: Workspace, label: Callable[[int], int]) -> None:
    for shard in CorpusMetadata.read(workspace).split("train"):
        table = workspace.read_table(shard.index)
        labels = pa.array([label(int(key[1:])) for key in table["key"].to_pylist()], pa.int32())
        at = table.schema.get_field_index("label")
        workspace.write_table(shard.index, table.set_column(at, table.schema.field(at), labels))


def test_a_table_that_knows_the_labels_may_filter(tmp_path: Path) -> None:
    found = table_of(
        tmp_path, lambda number, label: (3.0, (label + 1) % CLASSES, 0.95) if number % 5 == 0 else (0.1, label, 0.9)
    )
    assert (found.accuracy, found.ruled_out) == (pytest.approx(0.8), pytest.approx(0.2))
    assert found.filters
    assert not found.weak
    assert found.warnings == []


def test_a_table_of_guesses_is_called_too_weak(tmp_path: Path) -> None:
    found = table_of(tmp_path, lambda number, label: (1.095, label if number % 3 == 0 else (label + 1) % CLASSES, 0.35))
    assert found.weak
    assert found.explained == pytest.approx(1 - 1.095 / 1.0986, abs=0.001)
    assert "too weak to select by" in found.warnings[0]


def test_wrong_labels_leave_less_to_explain(tmp_path: Path) -> None:
    """The model predicts every right label and is as certain as 45% of wrong ones allow: nobody could explain more."""

    def scored(number: int, label: int) -> tuple[float, int, float]:
        wrong = number % 20 < 9
        return (1.3, (label + 1) % CLASSES, 0.45) if wrong else (0.8, label, 0.45)

    found = table_of(tmp_path, scored)
    assert found.wrong == pytest.approx(0.45)
    assert found.explained < 0.08
    assert found.explainable == pytest.approx(1 - (0.688 + 0.45 * 0.693) / 1.0986, abs=0.01)
    assert not found.weak


@pytest.mark.parametrize(("knows", "weak"), [(0.011, False), (0.003, True)])
def test_of_two_classes_hardly_anything_is_left_to_explain(tmp_path: Path, knows: float, weak: bool) -> None:
    """40% of the labels are wrong: all right ones would explain 3% of the entropy, a guess explains nothing."""

    def scored(number: int, label: int) -> tuple[float, int, float]:
        contradicted = number // 2 % 10 < 4
        return (1 - knows) * math.log(2), 1 - label if contradicted else label, 0.6

    found = table_of(tmp_path, scored, label=lambda number: number % 2)
    assert found.wrong == pytest.approx(0.4)
    assert found.explainable == pytest.approx(0.029, abs=0.001)
    assert found.explained == pytest.approx(knows, abs=1e-4)
    assert found.weak is weak


def test_who_always_predicts_the_largest_class_is_called_too_weak(tmp_path: Path) -> None:
    """What it contradicts, a quarter of the labels, is no noise that would excuse it."""
    found = table_of(
        tmp_path,
        lambda number, label: (0.64, 0, 0.75),
        label=lambda number: 0 if number % 100 < 75 else 1 if number % 100 < 97 else 2,
    )
    assert found.wrong == pytest.approx(0.25, abs=0.02)
    assert 0 < found.explained < 0.03
    assert found.weak


def test_a_filter_of_hard_samples_is_warned_of(tmp_path: Path) -> None:
    """Those that it rules out are doubtful, and its certain predictions are never contradicted."""
    found = table_of(
        tmp_path,
        lambda number, label: (1.5, (label + 1) % CLASSES, 0.5) if number % 5 == 0 else (0.1, label, 0.9),
        Prefilter(chance=1.0),
    )
    assert found.wrong == 0
    assert not found.filters
    assert found.lost == pytest.approx(0.2)
    assert any("don't filter or clean by it" in warning for warning in found.warnings)


@pytest.mark.parametrize("looks_wrong", [0, 10, 40, 90])
def test_the_filter_rules_out_twice_what_looks_wrong(tmp_path: Path, looks_wrong: int) -> None:
    """Of the 100 that the IL model is certain of so many are contradicted, and three fifths of the 800 others."""

    def scored(number: int, label: int) -> tuple[float, int, float]:
        contradicted = number // 9 % 100 < looks_wrong if number % 9 == 0 else number % 10 < 6
        confidence = 0.9 if number % 9 == 0 else 0.5
        return (1.2 + number / 1000, (label + 1) % CLASSES, confidence) if contradicted else (0.5, label, confidence)

    found = table_of(tmp_path, scored)
    assert found.wrong == pytest.approx(looks_wrong / 100)
    most = 0.75 if looks_wrong == 90 else 1.0
    assert found.ruled_out == pytest.approx(min(2 * found.wrong, 1 - found.accuracy, most), abs=0.01)
    assert found.filters or found.weak


def test_a_quarter_of_each_class_stays(tmp_path: Path) -> None:
    """Of class 2 the IL model predicts nearly nothing."""
    found = table_of(
        tmp_path,
        lambda number, label: (2.0 + number / 1000, 0, 0.9) if label == 2 and number % 9 else (0.1, label, 0.8),
    )
    assert found.wrong == 1
    assert found.ruled_out == pytest.approx(0.75 / CLASSES, abs=0.01)


def test_scoring_prints_what_the_table_is_good_for(tmp_path: Path) -> None:
    workspace = write_shapes(tmp_path, splits={"train": 80, "holdout": 40})
    for command in (["il", "train", "--steps", "1", "--cross-fit", "0"], ["il", "score"]):
        result = CliRunner().invoke(rho, [*command, "--workspace", workspace.location, "--device", "cpu"])
        assert result.exit_code == 0, result.output
    assert "of the labels, explains" in result.stdout
    assert "too weak to select by" in result.stderr


def test_a_table_without_predictions_has_no_quality(tmp_path: Path) -> None:
    workspace: Workspace = write_workspace(tmp_path, (20,))
    pq.write_table(
        pa.table({"key": [f"s{number}" for number in range(20)], "il": pa.array([0.5] * 20, pa.float32())}),
        tmp_path / "il.parquet",
    )
    assert il_quality(workspace, CorpusMetadata.read(workspace), str(tmp_path / "il.parquet")) is None
