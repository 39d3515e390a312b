"""The smallest change that makes a plain PyTorch loop train on what RHO-LOSS selects.

python examples/plain_pytorch.py WORKSPACE     (a workspace with an IL table: `make shards il`)
"""

import sys

import torch
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

from rhostream.loaders import CandidateStream
from rhostream.selection import OnlineSelector

stream = CandidateStream(sys.argv[1], il="small_cnn", super_batch_size=320, seed=0)
model = resnet18(num_classes=len(stream.card.classes))
optimizer = torch.optim.AdamW(model.parameters())
selector = OnlineSelector(model, batch_size=32, select="rho_loss")

for batch in selector(stream):
    # An ordinary loop would read `for images, labels in DataLoader(dataset, batch_size=32, shuffle=True)`.
    losses = cross_entropy(model(batch.images), batch.labels, reduction="none")
    loss = (losses * batch.weights).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {selector.step}: loss {loss.item():.3f}, {len(batch)} of {len(batch.super_batch)} candidates")
