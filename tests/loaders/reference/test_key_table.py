"""Tables from key to irreducible loss, as processes share them."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rhostream.errors import IrreducibleLossError
from rhostream.loaders.reference.key_table import KeyTable

COUNT = 20_000


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyTable:
    monkeypatch.setenv("RHO_CACHE", "cache")
    monkeypatch.chdir(tmp_path)
    keys = [f"{number:08d}" for number in range(COUNT)]
    pq.write_table(pa.table({"key": keys, "il": np.arange(COUNT) / 7, "predicted": np.arange(COUNT)}), "il.parquet")
    return KeyTable.of_parquet(str(tmp_path / "il.parquet"))


def test_a_table_goes_to_another_process_as_its_path(
    table: KeyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = pickle.dumps(table)
    assert len(sent) < 1000
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delenv("RHO_CACHE")
    received = pickle.loads(sent)
    il, predicted = received.lookup(["00000014", "none", "00019999"])
    np.testing.assert_array_equal(il, np.array([2, np.nan, 19999 / 7], np.float32))
    assert predicted.tolist() == [14, -1, 19999]
    assert len(received) == COUNT


def test_a_key_table_whose_cache_was_cleared_is_told(table: KeyTable, tmp_path: Path) -> None:
    sent = pickle.dumps(table)
    (cached,) = (tmp_path / "cache" / "keytables").iterdir()
    cached.unlink()
    with pytest.raises(IrreducibleLossError, match="has vanished"):
        pickle.loads(sent)
    assert table.lookup(["00000007"])[0] == 1
