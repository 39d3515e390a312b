"""DistributedDataParallel on what RHO-LOSS selects; `# rhostream` marks the lines that an ordinary loop has otherwise.

torchrun --nproc-per-node 2 examples/ddp.py WORKSPACE [--steps N]
"""

import argparse

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import rhostream as rho

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("workspace")
arguments.add_argument("--steps", type=int, default=100)
options = arguments.parse_args()

dist.init_process_group()
device = torch.device("cuda", dist.get_rank() % torch.cuda.device_count()) if torch.cuda.is_available() else "cpu"

stream = rho.CandidateStream(options.workspace, il="strided_cnn", super_batch_size=320)  # rhostream: no sampler
network = nn.Sequential(
    nn.Conv2d(stream.corpus.image_spec().channels, 32, 3, stride=2, padding=1),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.Conv2d(32, 64, 3, stride=2, padding=1),
    nn.BatchNorm2d(64),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(64, len(stream.corpus.classes)),
)
model = DistributedDataParallel(network.to(device))
optimizer = torch.optim.AdamW(model.parameters())
ledger = rho.Ledger(options.workspace, "ddp", overwrite=True)  # rhostream: for rho explain and rho report
selector = rho.OnlineSelector(model, batch_size=32, select="learnable", ledger=ledger)  # rhostream: sizes of all ranks
loader = rho.SelectingLoader(stream, selector, collate=rho.images_and_labels)  # rhostream: for DataLoader(dataset, …)

step = 0
for epoch in range(1 + options.steps // len(loader)):
    loader.set_epoch(epoch)
    for images, labels in loader:
        if step == options.steps:
            break
        loss = cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        print(f"rank {dist.get_rank()}, step {step} of epoch {epoch}: loss {loss.item():.3f}, {len(images)} samples")

dist.destroy_process_group()
