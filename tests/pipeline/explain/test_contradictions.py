"""Which labels are contradicted: confident learning's thresholds, as cleanlab has them; and what exports make of it."""

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import tables

from rhostream.cli.main import rho
from rhostream.errors import ConfigError
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.clean_list_config import CleanListConfig
from rhostream.pipeline.explain.ask import explain
from rhostream.pipeline.explain.contradictions import judgments, why_doubted
from rhostream.pipeline.export.clean_list import clean_list
from rhostream.pipeline.sql.database import query
from rhostream.schema import IL, SAMPLES

CLASSES = 4


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """400 samples; the IL model overrates class 0, never gives class 3, and has trained on the last 40."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, CLASSES, 400)
    logits = rng.normal(size=(400, CLASSES)) * 1.5 + np.eye(CLASSES)[labels] * 1.5 + np.array([2.5, 0, 0, -4])
    given = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    workspace = Workspace(tmp_path_factory.mktemp("w"))
    workspace.write_json("corpus.json", _card())
    rows = [
        {
            "key": f"k{n}",
            "split": "train",
            "row": n,
            "label": int(label),
            "class": "abcd"[label],
            "content_hash": f"{n}",
        }
        for n, label in enumerate(labels)
    ]
    workspace.write_table("index/train-000000.parquet", tables.table(SAMPLES, rows))
    scores = [
        {
            "il_model": "m",
            "key": f"k{n}",
            "label": int(label),
            "il": -math.log(given[n, label]),
            "predicted": int(given[n].argmax()),
            "confidence": float(given[n].max()),
            "in_sample": n >= 360,
        }
        for n, label in enumerate(labels)
    ]
    workspace.write_table("il/m/scores/train-000000.parquet", tables.table(IL, scores))
    np.savez(str(Path(workspace.root) / "truth.npz"), labels=labels, given=given)
    return workspace


@pytest.mark.slow  # its import
def test_contradicted_labels_pass_the_thresholds_of_cleanlab(workspace: Workspace) -> None:
    from cleanlab.count import get_confident_thresholds

    truth = np.load(str(Path(workspace.root) / "truth.npz"))
    labels, given = truth["labels"][:360], truth["given"][:360]
    thresholds = get_confident_thresholds(labels, given)
    guess, il = given.argmax(1), -np.log(given[np.arange(360), labels])
    expected = (guess != labels) & (il > math.log(CLASSES)) & (given.max(1) >= thresholds[guess])
    without = (guess != labels) & (il > math.log(CLASSES))
    found = {row["key"]: row["contradicted"] for row in query(workspace, judgments("m")).to_pylist()}
    assert [found[f"k{n}"] for n in range(360)] == expected.tolist()
    assert not any(found[f"k{n}"] for n in range(360, 400))
    assert 0 < expected.sum() < without.sum()


def test_a_model_that_contradicts_most_of_a_class_is_doubted(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    doubt = why_doubted(lambda sql: query(workspace, sql), "m")
    assert doubt is not None
    assert "IL model 'm' is too weak to call labels wrong by" in doubt
    assert "most labels of 1 of 4 classes: d (" in doubt
    explain(workspace, "mislabeled")
    assert [record.getMessage() for record in caplog.records] == [doubt]
    caplog.clear()
    clean_list(workspace, CleanListConfig(max_drop_share=1))
    assert [record.getMessage() for record in caplog.records] == [doubt]


@pytest.mark.parametrize(("sure_where_wrong", "doubted"), [(0.95, False), (0.5, True)])
def test_many_contradictions_are_believed_where_certain_ones_abound(
    workspace: Workspace, tmp_path: Path, sure_where_wrong: float, doubted: bool
) -> None:
    other = Workspace(tmp_path / "w")
    other.write_json("corpus.json", _card())
    index = workspace.read_table("index/train-000000.parquet", SAMPLES.names, SAMPLES)
    other.write_table("index/train-000000.parquet", index)
    rows = [_verdict(n, label, n % 4 == 0, sure_where_wrong) for n, label in enumerate(index["label"].to_pylist())]
    other.write_table("il/m/scores/train-000000.parquet", tables.table(IL, rows))
    assert (why_doubted(lambda sql: query(other, sql), "m") is not None) == doubted


def _verdict(number: int, label: int, contradicts: bool, sure_where_wrong: float) -> dict[str, Any]:
    """A row of a model that predicts a quarter of the labels otherwise: sure of it, or less so than where it agrees."""
    sure = sure_where_wrong if contradicts else 0.6
    given = (1 - sure) / 8 if contradicts else sure / 2
    return {
        "il_model": "m",
        "key": f"k{number}",
        "label": label,
        "il": -math.log(given),
        "predicted": (label + 1) % CLASSES if contradicts else label,
        "confidence": sure,
        "in_sample": False,
    }


@pytest.mark.slow
def test_a_list_that_drops_most_of_a_class_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the list drops \d+ of 400 .* 50% of 1 of 4 classes: d \(\d+ of \d+\)\."):
        clean_list(workspace)
    allowed = clean_list(workspace, CleanListConfig(max_drop_share=1))
    assert "drop" in allowed["action"].to_pylist()

    output = tmp_path / "clean.csv"
    listing = ["export", "list", "--workspace", workspace.location, "--output", str(output)]
    assert isinstance(CliRunner().invoke(rho, listing).exception, ConfigError)
    assert not output.exists()
    assert CliRunner().invoke(rho, [*listing, "--max-drop-share", "1"]).exit_code == 0


@pytest.mark.parametrize("kind", ["manifest", "webdataset", "fiftyone"])
def test_exports_by_such_a_list_are_refused(workspace: Workspace, kind: str, tmp_path: Path) -> None:
    Workspace(tmp_path).write_table("clean.parquet", clean_list(workspace, CleanListConfig(max_drop_share=1)))
    lists = ["--clean-list", str(tmp_path / "clean.parquet"), "--output", str(tmp_path / "out.toml")]
    result = CliRunner().invoke(rho, ["export", kind, "--workspace", workspace.location, *lists])
    assert "more than 50% of 1 of 4 classes" in str(result.exception)
    assert not (tmp_path / "out.toml").exists()


def _card() -> dict[str, object]:
    card: dict[str, object] = {"manifest": {"name": "n", "format": "table"}, "classes": list("abcd"), "shards": []}
    return card | {"counts": {"entries": 0, "samples": 0, "rejects": 0}, "fingerprint": hashlib.sha256().hexdigest()}
