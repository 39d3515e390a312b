"""Columns of Arrow tables as NumPy arrays, and back."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.tiny import write_il, write_workspace
from hypothesis import given, settings, strategies as st

from rhostream.errors import WorkspaceError
from rhostream.loaders.decode import take_texts
from rhostream.loaders.index.columns import values
from rhostream.loaders.storage.workspace import Workspace


@pytest.mark.parametrize("kind", [pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64()])
@settings(deadline=None)
@given(parts=st.lists(st.lists(st.integers(-100, 100)), max_size=3))
def test_numbers_keep_values_and_type(kind: pa.DataType, parts: list[list[int]]) -> None:
    found = values(pa.chunked_array(parts, kind))
    assert found.tolist() == [number for part in parts for number in part]
    assert found.dtype == kind.to_pandas_dtype()


def test_what_is_no_plain_number_is_converted_too() -> None:
    assert values(pa.chunked_array([["a"], ["b", None]])).tolist() == ["a", "b", None]
    seen = values(pa.chunked_array([[True, False], [True]]))
    assert seen.tolist() == [True, False, True]
    assert seen.dtype == bool
    assert values(pa.chunked_array([[True, None]])).tolist() == [True, None]
    il = values(pa.chunked_array([pa.array([1.5, None], pa.float32())]))
    assert il[0] == 1.5
    assert np.isnan(il[1])


def test_texts_are_taken_in_the_order_asked_for() -> None:
    texts = pa.array([f"key {number}" for number in range(100)]).slice(10)
    rows = np.array([3, 0, 89, 3])
    assert take_texts(texts, rows) == ["key 13", "key 10", "key 99", "key 13"]
    assert take_texts(texts, np.arange(90)[::-30]) == ["key 99", "key 69", "key 39"]
    assert take_texts(texts, rows[:0]) == []


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="NOT TESTED: pandas is not installed")
@pytest.mark.parametrize("thumbnails", [None, "16-jpeg"])
def test_the_first_super_batch_does_not_wait_for_pandas(tmp_path: Path, thumbnails: str | None) -> None:
    """Arrow would import it, a second and more, with the first conversion of a column."""
    workspace = write_workspace(tmp_path / "w", (20, 20))
    write_il(workspace)
    if thumbnails:
        from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
        from rhostream.pipeline.thumbnails.write import write_thumbnails

        write_thumbnails(workspace, ThumbnailsConfig(size=16, workers=0))
    code = (
        "import sys; from rhostream.loaders import CandidateStream; "
        f"batch = next(iter(CandidateStream({str(tmp_path / 'w')!r}, il='strided_cnn', super_batch_size=30, "
        f"thumbnails={thumbnails!r}, augmentation='shift_flip'))); "
        "print(len(batch), 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "30 False\n"


def test_a_table_lacking_a_column_is_named_with_its_columns(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.write_table("scores.parquet", pa.table({"key": ["a", "b"], "il": [1.0, 2.0]}))
    assert workspace.read_table("scores.parquet", ["il"]).to_pydict() == {"il": [1.0, 2.0]}
    with pytest.raises(WorkspaceError, match=r"scores\.parquet has no column predicted \(it has key, il\): restore it"):
        workspace.read_table("scores.parquet", ["key", "predicted"])


def test_any_table_is_written_and_read_back_the_same(tmp_path: Path) -> None:
    table = pa.table(
        {
            "key": [f"key {number}" for number in range(100)],
            "class": ["shirt", "dress"] * 50,
            "none": pa.nulls(100),
            "seen": [None, True] * 50,
            "nested": [[1, 2], None] * 50,
            "loss": pa.array(np.random.default_rng(0).gamma(1.0, 1.0, 100), pa.float32()),
        }
    )
    workspace = Workspace(tmp_path)
    for name, rows in (("whole.parquet", table), ("empty.parquet", table.slice(0, 0))):
        workspace.write_table(name, rows)
        assert workspace.read_table(name).equals(rows)
