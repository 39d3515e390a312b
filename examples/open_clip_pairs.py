"""open_clip's own `train_one_epoch` on pairs that JEST selects; `# rhostream` marks what its `get_data` has otherwise.

python examples/open_clip_pairs.py WORKSPACE [--steps N]

The workspace holds image-text pairs and the reference table that `rho il score` wrote (`rho il train` by the softmax
loss, as here). Under torchrun, with `args.distributed`, nothing here changes: the ranks choose one batch together, and
`ClipLoss(local_loss=True, gather_with_grad=True, …)` gathers it.
"""

import argparse
import logging
from typing import Any

import torch
from open_clip import CLIP, ClipLoss
from open_clip_train.data import DataInfo
from open_clip_train.train import train_one_epoch

import rhostream as rho

LENGTH = 16  # tokens of a caption


def forward(model: Any, batch: rho.Batch) -> Any:  # rhostream: how candidates are scored
    return model(*rho.images_and_tokens(batch))


arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("workspace")
arguments.add_argument("--steps", type=int, default=100, help="rounded up to whole epochs")
options = arguments.parse_args()
logging.basicConfig(level=logging.INFO, format="%(message)s")

spec = rho.TextSpec(length=LENGTH)
stream = rho.CandidateStream(options.workspace, il="small_clip", text_spec=spec, super_batch_size=160)  # rhostream
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
side = stream.corpus.image_spec().size
clip = CLIP(
    embed_dim=64,
    vision_cfg={"image_size": side, "patch_size": max(1, side // 8), "layers": 2, "width": 64, "head_width": 32},
    text_cfg={
        "context_length": LENGTH,
        "vocab_size": spec.vocabulary,
        "layers": 1,
        "width": 64,
        "heads": 2,
        "pool_type": "last",
    },
    output_dict=True,
).to(device)
optimizer = torch.optim.AdamW(clip.parameters(), lr=5e-4)

ledger = rho.Ledger(options.workspace, "open_clip_pairs", overwrite=True)  # rhostream: for rho explain and rho report
task = rho.Pairs(loss="softmax", forward=forward)  # rhostream
selector = rho.OnlineSelector(clip, batch_size=32, select="jest", task=task, ledger=ledger)  # rhostream
loader = rho.SelectingLoader(stream, selector, collate=rho.images_and_tokens)  # rhostream
data = {"train": DataInfo(loader, loader.sampler)}  # rhostream: in place of get_data(args, …)

args = argparse.Namespace(
    device=device,
    precision="fp32",
    accum_freq=1,
    skip_scheduler=True,
    distill=False,
    grad_clip_norm=None,
    batch_size=selector.batch_size,
    world_size=1,
    rank=0,
    local_rank=0,
    log_local=False,
    log_every_n_steps=1,
    wandb=False,
)
for epoch in range(-(-options.steps // loader.num_batches)):
    train_one_epoch(clip, data, ClipLoss(), epoch, optimizer, None, None, None, args)
