"""An Accelerate loop on what RHO-LOSS selects; `# rhostream` marks the lines that an ordinary loop has otherwise.

accelerate launch examples/accelerate_loop.py WORKSPACE [--steps N] [--checkpoint FOLDER]

`prepare` leaves the loader as it is: its batches are of this rank already, and on the model's device. `save_state` and
`load_state` keep its position in the epoch.
"""

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.functional import cross_entropy

import rhostream as rho

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("workspace")
arguments.add_argument("--steps", type=int, default=100, help="of this call")
arguments.add_argument("--checkpoint", help="go on from there if it exists, and write it at the end")
options = arguments.parse_args()

accelerator = Accelerator()
stream = rho.CandidateStream(options.workspace, il="strided_cnn", super_batch_size=320)  # rhostream
model = nn.Sequential(
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
optimizer = torch.optim.AdamW(model.parameters())
ledger = rho.Ledger(options.workspace, "accelerate_loop", overwrite=True)  # rhostream: for rho explain and rho report
selector = rho.OnlineSelector(model, batch_size=32, select="learnable", ledger=ledger)  # rhostream
loader = rho.SelectingLoader(stream, selector, collate=rho.images_and_labels)  # rhostream: for DataLoader(dataset, …)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
if options.checkpoint and Path(options.checkpoint).exists():
    accelerator.load_state(options.checkpoint)

step = 0
while step < options.steps:
    for images, labels in loader:  # the rest of an epoch
        loss = cross_entropy(model(images), labels)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        accelerator.print(f"step {step}: loss {loss.item():.3f}, {len(images)} samples")
        if step == options.steps:
            break
if options.checkpoint:
    accelerator.save_state(options.checkpoint)
accelerator.end_training()
