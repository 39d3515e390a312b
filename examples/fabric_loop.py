"""A loop of Lightning Fabric on what RHO-LOSS selects; `# rhostream` marks what an ordinary loop has otherwise.

fabric run --devices 2 --strategy ddp examples/fabric_loop.py WORKSPACE [--steps N]

The loader is not given to `setup_dataloaders`: its batches are of this rank already, and on the model's device.
"""

import argparse

import torch
from lightning.fabric import Fabric
from torch import nn
from torch.nn.functional import cross_entropy

import rhostream as rho

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("workspace")
arguments.add_argument("--steps", type=int, default=100)
options = arguments.parse_args()

fabric = Fabric()
fabric.launch()
fabric.seed_everything(0)
stream = rho.CandidateStream(options.workspace, il="strided_cnn", super_batch_size=320)  # rhostream
network = nn.Sequential(
    nn.Conv2d(stream.corpus.image_spec().channels, 32, 3, stride=2, padding=1),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(32, len(stream.corpus.classes)),
)
model, optimizer = fabric.setup(network, torch.optim.AdamW(network.parameters()))
ledger = rho.Ledger(options.workspace, "fabric_loop", overwrite=True)  # rhostream: for rho explain and rho report
selector = rho.OnlineSelector(network, batch_size=32, select="learnable", ledger=ledger)  # rhostream: the module inside
loader = rho.SelectingLoader(stream, selector, collate=rho.images_and_labels)  # rhostream: for DataLoader(dataset, …)

step = 0
while step < options.steps:
    for images, labels in loader:  # the rest of an epoch
        loss = cross_entropy(model(images), labels)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        fabric.print(f"step {step}: loss {loss.item():.3f}, {len(images)} samples")
        if step == options.steps:
            break
ledger.close()
