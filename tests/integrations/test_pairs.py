"""Pairs in models of open_clip and Hugging Face: their losses, and the whole gradient on shares of ranks."""

import os
from typing import Any

import pytest
import torch
import torch.distributed as dist
from helpers.pairs import SIDE, WORDS, pairs_super_batch, shared_out
from helpers.ranks import on_jobs

import rhostream as rho
from rhostream.loaders.reference import PairReference

N, BATCH = 24, 8


def open_clip_model(loss: str) -> torch.nn.Module:
    from open_clip import CLIP

    torch.manual_seed(0)
    return CLIP(
        embed_dim=16,
        vision_cfg={"image_size": SIDE, "patch_size": 2, "layers": 1, "width": 32, "head_width": 16},
        text_cfg={"context_length": WORDS, "vocab_size": 64, "layers": 1, "width": 32, "heads": 2},
        init_logit_bias=-3.0 if loss == "sigmoid" else None,
        output_dict=True,
    )


def forward(model: Any, batch: rho.Batch) -> Any:
    return model(*rho.images_and_tokens(batch))


def selector_of(model: torch.nn.Module, loss: str, forward: Any) -> rho.OnlineSelector:
    return rho.OnlineSelector(model, batch_size=BATCH, select="jest", task=rho.Pairs(loss=loss, forward=forward))


def super_batch_of(loss: str) -> rho.SuperBatch:
    return pairs_super_batch(N, reference=PairReference(loss=loss, scale=12.0))


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_open_clip_trains_on_what_jest_selects(loss):
    losses = pytest.importorskip("open_clip.loss")
    model = open_clip_model(loss)
    selector = selector_of(model, loss, forward)
    batch = selector.select(super_batch_of(loss))
    assert batch is not None
    images, texts = rho.images_and_tokens(batch)
    assert (images.shape, texts.shape) == ((BATCH, 3, SIDE, SIDE), (BATCH, WORDS))
    outputs = model(images, texts)
    criterion = losses.ClipLoss() if loss == "softmax" else losses.SigLipLoss()
    theirs = criterion(**outputs)
    theirs.backward()
    assert selector.scorer.task.losses(outputs, batch).mean().item() == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_hugging_face_models_score_and_train_pairs(loss):
    transformers = pytest.importorskip("transformers")
    text = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "max_position_embeddings": WORDS}
    vision = {"image_size": SIDE, "patch_size": 2, "hidden_size": 16, "intermediate_size": 16}
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    if loss == "softmax":
        ends = {"eos_token_id": 63, "bos_token_id": 62, "pad_token_id": 0}
        config = transformers.CLIPConfig(text_config=text | layers | ends, vision_config=vision | layers)
        model = transformers.CLIPModel(config)
    else:
        model = transformers.SiglipModel(
            transformers.SiglipConfig(
                text_config=text | layers | {"projection_size": 16}, vision_config=vision | layers
            )
        )
    selector = selector_of(model.eval(), loss, rho.transformers_outputs)
    batch = selector.select(super_batch_of(loss))
    assert batch is not None
    task = selector.scorer.task
    losses = task.losses(task.outputs(model, batch), batch)
    theirs = model(
        pixel_values=batch.images,
        input_ids=batch.tokens["input_ids"],
        attention_mask=batch.tokens["attention_mask"] if loss == "softmax" else None,
        return_loss=True,
    ).loss
    assert losses.mean().item() == pytest.approx(theirs.item(), rel=1e-4)
    losses.mean().backward()


def gradients(loss: str) -> dict[str, Any]:
    """Of open_clip's own loss on this rank's share: gathered with gradient, and averaged over the ranks."""
    from open_clip import ClipLoss

    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if ranks > 1 else 0
    model = open_clip_model(loss)
    batch = selector_of(model, loss, forward).select(shared_out(super_batch_of(loss), rank, ranks, 6))
    assert batch is not None
    criterion = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=ranks)
    criterion(**model(*rho.images_and_tokens(batch))).backward()
    found = {}
    for name, parameter in model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if ranks > 1:
            dist.all_reduce(gradient)
        found[name] = float(gradient.double().square().sum() / ranks**2)
    if ranks > 1:
        dist.destroy_process_group()
    return found


def test_gathered_loss_of_two_ranks_has_the_whole_gradient():
    pytest.importorskip("open_clip")
    (by_rank,) = on_jobs("integrations.test_pairs", [(2, "gradients", ["softmax"])])
    alone = gradients("softmax")
    assert by_rank[0] == pytest.approx(alone, rel=1e-3, abs=1e-9)
