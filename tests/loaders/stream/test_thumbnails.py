"""The stream that reads small thumbnails of its candidates, and the selector that reads the full images of the few."""

import logging
from contextlib import contextmanager

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers.streams import network
from helpers.tiny import another_split, image_of, write_il, write_workspace
from torch import nn

from rhostream.errors import ShardError, WorkspaceError
from rhostream.loaders import CandidateStream, CorpusMetadata, ImageSpec, ReadOptions
from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.thumbnails.write import write_thumbnails
from rhostream.selection import OnlineSelector
from rhostream.selection.ledger.ledger import Ledger

ROWS, TOTAL = (60, 40), 100
SIDE, SMALL = 32, 8


@pytest.fixture
def workspace(tmp_path):
    made = write_workspace(tmp_path / "w", ROWS, side=SIDE)
    write_il(made)
    write_thumbnails(made, ThumbnailsConfig(size=SMALL, format="raw", workers=0))
    return made


def stream_of(workspace, **settings):
    return CandidateStream(workspace, il="strided_cnn", super_batch_size=20, thumbnails="8-raw", **settings)


def test_candidates_are_small_and_the_selected_are_full(workspace):
    model = network()
    for batch in OnlineSelector(model, batch_size=4)(stream_of(workspace)):
        assert batch.super_batch.images.shape == (20, 3, SMALL, SMALL)
        assert batch.images.shape == (4, 3, SIDE, SIDE)
        for image, key, label in zip(batch.images, batch.keys, batch.labels, strict=True):
            expected = ImageSpec(size=SIDE).pixels(image_of(int(key[1:]), int(label), SIDE))
            assert torch.allclose(image, ImageSpec(size=SIDE).normalize(torch.from_numpy(expected)[None])[0])


def test_moving_pixels_to_the_models_device_is_charged_as_loading(workspace, monkeypatch):
    class Noting:
        def __init__(self):
            self.running = ["nothing"]

        @contextmanager
        def charge(self, cost):
            self.running.append(cost)
            yield
            self.running.pop()

        def flops(self, cost, shape, function):
            return function()

    meter, moved, to = Noting(), [], torch.Tensor.to

    def noting(tensor, *arguments, **settings):
        if tensor.dtype == torch.uint8 and isinstance(arguments[0], torch.device):
            moved.append((meter.running[-1], tensor.shape[2]))
        return to(tensor, *arguments, **settings)

    monkeypatch.setattr(torch.Tensor, "to", noting)
    list(OnlineSelector(network(), batch_size=4, meter=meter)(stream_of(workspace)))
    assert set(moved) == {("load", SMALL), ("load", SIDE)}


def test_only_the_selected_are_read_in_full(workspace):
    taken = [key for batch in OnlineSelector(network(), batch_size=4)(stream_of(workspace)) for key in batch.keys]
    corpus = CorpusMetadata.read(workspace)
    for shard in corpus.shards:
        with open(workspace.path(shard.tar), "r+b") as tar:  # noqa: PTH123
            for row in workspace.read_table(shard.index).to_pylist():
                if row["key"] not in taken:  # whoever reads one of them stops with an error
                    tar.seek(row["offset"])
                    tar.write(b"\0" * row["size"])
    again = [key for batch in OnlineSelector(network(), batch_size=4)(stream_of(workspace)) for key in batch.keys]
    assert again == taken


def test_scoring_ahead_scores_with_the_model_of_one_step_before(workspace):
    class Spy(nn.Module):
        """Logits that say how many steps have been taken."""

        def __init__(self):
            super().__init__()
            self.steps = nn.Parameter(torch.zeros(3), requires_grad=False)

        def forward(self, images):
            scored_at.append(int(self.steps[0]))
            return images.mean((2, 3)) + self.steps

    def steps_when_scored(**settings):
        scored_at.clear()
        model = Spy()
        for _ in OnlineSelector(model, batch_size=4, **settings)(stream_of(workspace)):
            model.steps += 1
        return list(scored_at)

    scored_at: list[int] = []
    assert steps_when_scored() == [0, 1, 2, 3, 4]
    assert steps_when_scored(score_ahead=True) == [0, 0, 1, 2, 3]


def test_a_selected_unreadable_image_is_counted_and_in_the_ledger(workspace):
    first = next(OnlineSelector(network(), batch_size=4)(stream_of(workspace)))
    bad = first.keys[1]
    for shard in CorpusMetadata.read(workspace).shards:
        for row in workspace.read_table(shard.index).to_pylist():
            if row["key"] == bad:
                with open(workspace.path(shard.tar), "r+b") as tar:  # noqa: PTH123
                    tar.seek(row["offset"] + row["size"] // 2)
                    tar.write(b"garbled!")
    with pytest.raises(ShardError, match=rf"sample {bad} of shard \S+ cannot be read"):
        list(OnlineSelector(network(), batch_size=4)(stream_of(workspace)))
    ledger = Ledger(workspace, "run")
    batches = list(
        OnlineSelector(network(), batch_size=4, ledger=ledger)(
            stream_of(workspace, read_options=ReadOptions(max_unreadable=1))
        )
    )
    assert batches[0].keys == [key for key in first.keys if key != bad]
    ledger.flush()
    rows = pq.read_table(workspace.path("runs/run/ledger")).to_pylist()
    assert [(row["key"], row["selected"]) for row in rows if row["reason"] == "unreadable"] == [(bad, False)]
    assert sum(row["selected"] for row in rows) == sum(len(batch) for batch in batches) == 19


def test_a_thumbnails_of_other_shards_is_refused(workspace):
    with pytest.raises(WorkspaceError, match=r"no thumbnails/16-jpeg/thumbnails.json \(there are: 8-raw\)"):
        CandidateStream(workspace, thumbnails="16-jpeg")
    another_split(workspace)
    with pytest.raises(WorkspaceError, match="of another split of the corpus"):
        CandidateStream(workspace, thumbnails="8-raw")


def test_an_il_table_of_another_spec_is_told(workspace, caplog):
    corpus = workspace.read_json("il/strided_cnn/model.json")
    workspace.write_json("il/strided_cnn/model.json", corpus | {"spec": ImageSpec(size=64).to_dict()})
    with caplog.at_level(logging.WARNING):
        stream_of(workspace)
    assert "computed on images of 64 pixels and 3 channel(s), candidates are scored on 8 pixels" in caplog.text


def test_augmentation_is_the_same_on_thumbnails_and_full_images(workspace):
    batch = next(iter(stream_of(workspace, augmentation="shift_flip")))
    plain = next(iter(stream_of(workspace)))
    full, failures = batch.full.submit(np.arange(20)).result()
    whole, _ = plain.full.submit(np.arange(20)).result()
    assert not failures
    mirrored = [not np.array_equal(full[i], whole[i]) for i in range(20)]
    assert 0 < sum(mirrored) <= 20
    small_flips = _flips(batch.images.numpy(), plain.images.numpy(), SMALL)
    full_flips = _flips(full, whole, SIDE)
    assert small_flips == full_flips


def _flips(changed, plain, side):
    """Which images match their plain version better when mirrored."""
    inner = slice(side // 4, -side // 4)

    def distance(one, other):
        reach = side // 8
        return min(
            np.abs(np.roll(one, (dy, dx), (1, 2))[:, inner, inner].astype(int) - other[:, inner, inner]).mean()
            for dy in range(-reach, reach + 1)
            for dx in range(-reach, reach + 1)
        )

    return [distance(one[:, :, ::-1], other) < distance(one, other) for one, other in zip(changed, plain, strict=True)]
