"""The smallest change that makes a plain PyTorch loop train on what RHO-LOSS selects.

python examples/plain_pytorch.py WORKSPACE [--steps N]     (a workspace with an IL table: `make shards il`)
"""

import argparse
from itertools import islice

import torch
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

import rhostream as rho

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("workspace")
arguments.add_argument("--steps", type=int, default=None, help="one epoch where not given")
options = arguments.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
stream = rho.CandidateStream(options.workspace, il="strided_cnn", super_batch_size=320, seed=0)
model = resnet18(num_classes=len(stream.corpus.classes)).to(device)
optimizer = torch.optim.AdamW(model.parameters())
ledger = rho.Ledger(options.workspace, "plain_pytorch", overwrite=True)  # for rho explain and rho report
selector = rho.OnlineSelector(model, batch_size=32, select="learnable", ledger=ledger)

for batch in islice(selector(stream), options.steps):
    # An ordinary loop would read `for images, labels in DataLoader(dataset, batch_size=32, shuffle=True)`.
    losses = cross_entropy(model(batch.images), batch.labels, reduction="none")
    loss = (losses * batch.weights).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    # The loss is that of the selected, which are hard by choice: the accuracy on all candidates tells more.
    print(f"step {selector.step}: loss {loss.item():.3f}, candidates {batch.candidate_accuracy:.0%} correct")
