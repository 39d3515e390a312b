"""open_clip's own `train_one_epoch` on what RHO-LOSS selects; `# rhostream` marks what its `get_data` has otherwise.

python examples/open_clip_loop.py WORKSPACE [--steps N]

An image's loss is that of telling its class by the zero-shot prompts. For captions carry the index's column along,
`CandidateStream(…, extra=("caption",))`, and tokenize `batch.extra["caption"]`.
"""

import argparse
import logging

import torch
from open_clip import CLIP, ClipLoss, get_tokenizer
from open_clip_train.data import DataInfo
from open_clip_train.train import train_one_epoch
from torch import Tensor, nn

import rhostream as rho


class ZeroShot(nn.Module):  # rhostream: what scores candidates, logits over the classes
    def __init__(self, clip: CLIP, prompts: Tensor) -> None:
        super().__init__()
        self.clip, self.prompts = clip, prompts

    def forward(self, images: Tensor) -> Tensor:
        texts = self.clip.encode_text(self.prompts, normalize=True)
        logits: Tensor = self.clip.logit_scale.exp() * self.clip.encode_image(images, normalize=True) @ texts.T
        return logits


def images_and_prompts(batch: rho.SelectedBatch) -> tuple[Tensor, Tensor]:  # rhostream
    images, labels = rho.images_and_labels(batch)
    return images, prompts[labels]


arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("workspace")
arguments.add_argument("--steps", type=int, default=100, help="rounded up to whole epochs")
options = arguments.parse_args()
logging.basicConfig(level=logging.INFO, format="%(message)s")

stream = rho.CandidateStream(options.workspace, il="strided_cnn", super_batch_size=320)  # rhostream
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
prompts = get_tokenizer("ViT-B-32")([f"a photo of a {name}" for name in stream.corpus.classes]).to(device)
side = stream.corpus.image_spec().size
clip = CLIP(
    embed_dim=64,
    vision_cfg={"image_size": side, "patch_size": max(1, side // 8), "layers": 2, "width": 64, "head_width": 32},
    text_cfg={"layers": 1, "width": 64, "heads": 2},
    output_dict=True,
).to(device)
optimizer = torch.optim.AdamW(clip.parameters(), lr=5e-4)

ledger = rho.Ledger(options.workspace, "open_clip_loop", overwrite=True)  # rhostream: for rho explain and rho report
selector = rho.OnlineSelector(ZeroShot(clip, prompts), batch_size=32, select="learnable", ledger=ledger)  # rhostream
loader = rho.SelectingLoader(stream, selector, collate=images_and_prompts)  # rhostream
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
