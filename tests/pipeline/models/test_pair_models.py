"""Two-tower models of image-text pairs."""

import pytest
import torch

from rhostream import Batch, ImageSpec, Pairs, TextSpec
from rhostream.errors import ConfigError
from rhostream.pipeline.models import build_pairs_model, count_parameters


def pairs_of(n, side=32):
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(n, 6, dtype=torch.long)
    ids = torch.randint(2, 1_000, (n, 6), generator=generator)
    fields = {"image": torch.randn(n, 3, side, side, generator=generator), "input_ids": ids, "attention_mask": mask}
    return Batch(fields=fields, labels=torch.zeros(n, dtype=torch.long))


def small_clip(loss="sigmoid", size=32):
    return build_pairs_model("small_clip", ImageSpec(size=size), TextSpec(length=16), loss=loss, seed=0)


@pytest.mark.parametrize("size", [16, 32, 60, 64])
def test_small_clip_has_few_parameters_at_any_size(size):
    model = small_clip(size=size)
    assert 1_000_000 < count_parameters(model) < 5_000_000
    found = Pairs().outputs(model, pairs_of(2, side=size))
    assert found["image_features"].shape == found["text_features"].shape == (2, 64)
    assert model.encode_image(torch.zeros(1, 3, size // 2, size // 2)).shape == (1, 64)


def test_embedding_depends_on_no_other_of_its_batch():
    model, batch = small_clip().train(), pairs_of(6)
    alone = Batch(fields={name: field[2:4] for name, field in batch.fields.items()}, labels=batch.labels[2:4])
    together, apart = Pairs().outputs(model, batch), Pairs().outputs(model, alone)
    for name in ("image_features", "text_features"):
        assert torch.allclose(together[name][2:4], apart[name], atol=1e-5)


@pytest.mark.slow
def test_some_steps_teach_pairs_by_heart():
    model, task = small_clip("softmax"), Pairs(loss="softmax")
    batch = pairs_of(8, side=16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(25):
        task.losses(task.outputs(model, batch), batch).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert task.correct(task.outputs(model, batch), batch).float().mean() > 0.9


def test_unknown_pairs_model_is_told_with_those_there_are():
    with pytest.raises(ConfigError, match="'lenet5' takes no pairs of images and texts: choose small_clip"):
        build_pairs_model("lenet5", ImageSpec(), TextSpec(), seed=0)
