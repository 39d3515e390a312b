"""The join in somebody else's webdataset pipeline, and foreign tars all the way: index, IL model, stream or stage."""

import logging
import math
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import webdataset as wds
from helpers.dropin import run_example
from helpers.foreign_tars import index, sample, tar
from helpers.support import jpeg

from rhostream.errors import ConfigError, IrreducibleLossError
from rhostream.loaders import CandidateStream, CorpusMetadata, Workspace, with_il
from rhostream.loaders.decode.rgb import content_hash
from rhostream.loaders.index.keys import webdataset_key
from rhostream.loaders.stream.webdataset_stage import Handler
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RHO_CACHE", str(tmp_path_factory.mktemp("cache")))


def table(path: Path, losses: dict[str, float | None], **columns: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    il = pa.array(list(losses.values()), pa.float32())
    pq.write_table(pa.table({"key": list(losses), "il": il, **columns}), path)
    return str(path)


def stored(path: Path, *keys: str) -> wds.WebDataset:
    tar(path, *(member for n, key in enumerate(keys) for member in sample(key, str(n % 3), n)))
    return wds.WebDataset(str(path), shardshuffle=False)


def test_each_sample_gets_its_loss_by_key_in_pipeline_order(tmp_path: Path) -> None:
    keys = [f"{n:06d}" for n in range(200)]
    il = table(tmp_path / "il.parquet", {key: int(key) / 7 for key in reversed(keys)}, predicted=list(range(200)))
    found = list(stored(tmp_path / "a.tar", *keys).compose(with_il(il)))
    assert [item["__key__"] for item in found] == keys
    for n, item in enumerate(found):
        assert isinstance(item["il"], float)
        assert item["il"] == np.float32(n / 7)
        assert (item["predicted"], item["jpg"]) == (199 - n, jpeg(n))


def test_a_folder_of_parquet_without_predictions_joins_after_decoding(tmp_path: Path) -> None:
    table(tmp_path / "il/0.parquet", {"0": 0.5})
    table(tmp_path / "il/1.parquet", {"1": 1.5})
    data = stored(tmp_path / "a.tar", "0", "1")
    after = list(data.decode("rgb8").compose(with_il(str(tmp_path / "il"))).to_tuple("jpg", "cls", "il"))
    assert [(image.shape, label, il) for image, label, il in after] == [((16, 24, 3), 0, 0.5), ((16, 24, 3), 1, 1.5)]
    before = list(data.compose(with_il(tmp_path / "il")).decode("rgb8", partial=True))
    assert [item["il"] for item in before] == [0.5, 1.5]
    assert all("predicted" not in item for item in before)


def test_names_with_folders_are_found_raw_and_as_indexed(tmp_path: Path) -> None:
    names = ["n01/n01_10026", "./dir/x.y/7", "plain", "./dotted", "by_tar"]
    il = table(
        tmp_path / "il.parquet",
        {
            "n01/n01_10026": 0.0,  # somebody's own table
            webdataset_key("dir/x.y/7"): 1.0,
            "plain": 2.0,
            "dotted": 3.0,
            webdataset_key("by_tar", "shards/a.tar"): 4.0,
        },
    )
    found = list(stored(tmp_path / "a.tar", *names).compose(with_il(il)))
    assert [(item["__key__"], item["il"]) for item in found] == [(name, float(n)) for n, name in enumerate(names)]


def test_a_nonfinite_or_missing_loss_is_an_error_or_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = [f"{n:03d}" for n in range(150)]
    losses: dict[str, float | None] = dict.fromkeys(keys, 1.0)
    losses |= {"100": math.nan, "101": math.inf, "102": None}
    del losses["103"]
    il = table(tmp_path / "il.parquet", losses)
    data = stored(tmp_path / "a.tar", *keys)
    with pytest.raises(
        IrreducibleLossError,
        match=r"4 of 64 samples \(after 64 good ones\) .* the first is 100 of .*a\.tar: score them",
    ):
        list(data.compose(with_il(il)))
    stage = with_il(il, on_missing="drop")
    with caplog.at_level(logging.WARNING):
        kept = [item["__key__"] for item in data.compose(stage)]
    assert kept == [key for key in keys if key not in ("100", "101", "102", "103")]
    assert (stage.joined, stage.dropped) == (146, 4)
    assert "has dropped 4 of 150 samples" in caplog.text


def missing_two(folder: Path) -> tuple[wds.WebDataset, str]:
    """Eight samples, of which "3" and "6" have no loss."""
    keys = [str(n) for n in range(8)]
    il = table(folder / "il.parquet", {key: float(key) for key in keys if key not in ("3", "6")})
    return stored(folder / "a.tar", *keys), il


@pytest.mark.parametrize(
    ("handler", "kept"),
    [
        (wds.ignore_and_continue, ["0", "1", "2", "4", "5", "7"]),
        (wds.warn_and_continue, ["0", "1", "2", "4", "5", "7"]),
        (wds.ignore_and_stop, ["0", "1", "2"]),
        (wds.warn_and_stop, ["0", "1", "2"]),
    ],
)
@pytest.mark.filterwarnings("ignore:IrreducibleLossError")
def test_webdatasets_handlers_settle_missing_losses(tmp_path: Path, handler: Handler, kept: list[str]) -> None:
    data, il = missing_two(tmp_path)
    stage = with_il(il, handler=handler)
    assert [item["__key__"] for item in data.compose(stage)] == kept
    assert (stage.joined, stage.dropped) == (len(kept), 2 if len(kept) > 3 else 0)


def test_a_handler_is_given_each_sample_and_may_raise(tmp_path: Path) -> None:
    data, il = missing_two(tmp_path)
    seen: list[Exception] = []
    list(data.compose(with_il(il, handler=lambda error: seen.append(error) or True)))
    assert [type(error) for error in seen] == [IrreducibleLossError] * 2
    assert [str(error).split("the first is ")[1][0] for error in seen] == ["3", "6"]
    with pytest.raises(IrreducibleLossError, match="1 of 1 samples"):
        list(data.compose(with_il(il, handler=wds.reraise_exception)))
    with pytest.raises(ConfigError, match="leaves a handler nothing to do"):
        with_il(il, on_missing="drop", handler=wds.ignore_and_continue)


def test_a_data_pipeline_takes_the_stage_with_its_handler(tmp_path: Path) -> None:
    _, il = missing_two(tmp_path)
    data = wds.DataPipeline(
        wds.SimpleShardList(str(tmp_path / "a.tar")),
        wds.tarfile_to_samples(),
        with_il(il, handler=wds.ignore_and_continue),
        wds.decode("rgb8", partial=True),
        wds.to_tuple("jpg", "il"),
    )
    loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=1)
    assert [il for _, il in loader] == [0.0, 1.0, 2.0, 4.0, 5.0, 7.0]


def test_losses_the_il_model_was_trained_on_are_none(tmp_path: Path) -> None:
    il = table(tmp_path / "il.parquet", {"0": 0.1, "1": 0.2, "2": 0.3}, in_sample=[False, True, None])
    found = stored(tmp_path / "a.tar", "0", "1", "2").compose(with_il(il, on_missing="drop"))
    assert [item["__key__"] for item in found] == ["0", "2"]


def test_what_cannot_be_joined_is_told(tmp_path: Path) -> None:
    with pytest.raises(IrreducibleLossError, match="no such file or folder"):
        with_il(tmp_path / "none.parquet")
    with pytest.raises(ConfigError, match="on_missing 'skip': choose"):
        with_il(tmp_path, on_missing="skip")  # type: ignore[arg-type]
    stage = with_il(table(tmp_path / "il.parquet", {"0": 0.1}))
    with pytest.raises(IrreducibleLossError, match="samples without __key__: put it before the stages"):
        list(stored(tmp_path / "a.tar", "0").to_tuple("jpg", "cls").compose(stage))


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_dataloader_workers_open_the_table_by_its_path(tmp_path: Path, start: str) -> None:
    keys = [f"{n:04d}" for n in range(90)]
    il = table(tmp_path / "il.parquet", {key: float(key) for key in keys})
    stage = with_il(il)
    assert len(pickle.dumps(stage)) < 1000
    urls = [str(tmp_path / f"{n}.tar") for n in range(3)]
    for n in range(3):
        stored(tmp_path / f"{n}.tar", *keys[n::3])
    data = wds.WebDataset(urls, shardshuffle=False).compose(stage)
    loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context=start)
    found = {item["__key__"]: item["il"] for item in loader}
    assert found == {key: float(key) for key in keys}


def test_importing_it_pulls_in_neither_webdataset_nor_torch() -> None:
    code = (
        "import sys; from rhostream.loaders import with_il; from rhostream.loaders import with_il as again; "
        "assert callable(again) and not {'webdataset', 'torch'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Workspace]:
    """Foreign tars with folders in their names, indexed, with an IL table of a model trained on their holdout."""
    folder = tmp_path_factory.mktemp("foreign")
    for number in range(3):
        names = [f"{'abc'[n % 3]}/{number}-{n:03d}" for n in range(40)]
        members = [
            m
            for n, name in enumerate(names)
            for m in ((f"{name}.jpg", jpeg(100 * number + n, (70, 66))), (f"{name}.cls", str(n % 3).encode()))
        ]
        tar(folder / f"tars/{number}.tar", *members)
    index(folder / "w", folder / "tars")
    workspace = Workspace(folder / "w")
    train_il(workspace, ILTrainConfig(steps=2, device="cpu"))
    score_il(workspace, ILScoreConfig(device="cpu"))
    return folder, workspace


def images_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    urls = sorted(str(path) for path in (folder / "tars").glob("*.tar"))
    for item in wds.WebDataset(urls, shardshuffle=False):
        yield webdataset_key(item["__key__"]), item["jpg"]


def test_our_stream_reads_candidates_and_losses_from_foreign_tars(scored: tuple[Path, Workspace]) -> None:
    folder, workspace = scored
    corpus = CorpusMetadata.read(workspace)
    losses = {}
    for shard in corpus.split("train"):
        part = workspace.read_table(shard.scores("strided_cnn"), ["key", "il"]).to_pydict()
        losses |= dict(zip(part["key"], part["il"], strict=True))
    hashes = {key: content_hash(image) for key, image in images_of(folder)}
    assert losses.keys() < hashes.keys()
    stream = CandidateStream(workspace.location, il="strided_cnn", super_batch_size=16, seed=0)
    seen: dict[str, float] = {}
    for batch in stream:
        assert batch.images.shape[1:] == (3, 64, 64)
        assert batch.il is not None
        seen |= dict(zip(batch.keys, batch.il.tolist(), strict=True))
    assert seen
    assert all(losses[key] == pytest.approx(il) for key, il in seen.items())


def test_the_same_table_serves_a_webdataset_pipeline_of_all_tars(scored: tuple[Path, Workspace]) -> None:
    folder, workspace = scored
    stage = with_il(workspace.location, il="strided_cnn", on_missing="drop")
    urls = sorted(str(path) for path in (folder / "tars").glob("*.tar"))
    found = {webdataset_key(i["__key__"]): i["il"] for i in wds.WebDataset(urls, shardshuffle=False).compose(stage)}
    counts = CorpusMetadata.read(workspace).counts["splits"]
    assert (len(found), stage.dropped) == (counts["train"], counts["holdout"])


@pytest.mark.slow
def test_the_example_runs_on_foreign_tars(
    scored: tuple[Path, Workspace], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, workspace = scored
    run_example("webdataset_pipeline", monkeypatch, f"{folder}/tars/{{0..2}}.tar", workspace.location)
    lines = capsys.readouterr().out.splitlines()
    candidates = sum(int(line.split(" of ")[1].split()[0]) for line in lines)
    assert candidates == CorpusMetadata.read(workspace).counts["splits"]["train"]
    assert all(line.startswith("loss ") for line in lines)
