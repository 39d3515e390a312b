"""DeepSpeed with ZeRO-1 on what RHO-LOSS selects; `# rhostream` marks the lines that an ordinary loop has otherwise.

torchrun --nproc-per-node 2 examples/deepspeed_zero1.py WORKSPACE [--steps N] [--checkpoint FOLDER]
"""

import argparse
from pathlib import Path

import deepspeed
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import rhostream as rho

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("workspace")
arguments.add_argument("--steps", type=int, default=100, help="of this call")
arguments.add_argument("--checkpoint", help="go on from there if it exists, and write it at the end")
options = arguments.parse_args()

deepspeed.init_distributed()
ranks = torch.distributed.get_world_size()
stream = rho.CandidateStream(options.workspace, il="strided_cnn", super_batch_size=320)  # rhostream
torch.manual_seed(0)
spec = stream.corpus.image_spec()
model = nn.Sequential(
    nn.Flatten(), nn.Linear(spec.channels * spec.size**2, 64), nn.ReLU(), nn.Linear(64, len(stream.corpus.classes))
)
engine, _, _, _ = deepspeed.initialize(
    model=model,
    optimizer=torch.optim.AdamW(model.parameters()),
    config={"train_micro_batch_size_per_gpu": 32 // ranks, "zero_optimization": {"stage": 1}},
)
ledger = rho.Ledger(options.workspace, "deepspeed", overwrite=not options.checkpoint)  # rhostream
selector = rho.OnlineSelector(engine.module, batch_size=32, select="learnable", ledger=ledger)  # rhostream
loader = rho.SelectingLoader(stream, selector, collate=rho.images_and_labels)  # rhostream: for DataLoader(dataset, …)

if options.checkpoint and Path(options.checkpoint).exists():
    _, kept = engine.load_checkpoint(options.checkpoint)
    loader.load_state_dict(kept["loader"])  # rhostream

step = 0
while step < options.steps:
    for images, labels in loader:  # the rest of an epoch
        loss = cross_entropy(engine(images.to(engine.device)), labels.to(engine.device))
        engine.backward(loss)
        engine.step()
        step += 1
        print(f"rank {engine.global_rank}, step {step}: loss {loss.item():.3f}, {len(images)} samples")
        if step == options.steps:
            break
if options.checkpoint:
    engine.save_checkpoint(options.checkpoint, client_state={"loader": loader.state_dict()})  # rhostream
ledger.close()
torch.distributed.destroy_process_group()
