"""torchdata's StatefulDataLoader reading the candidates; `# rhostream` marks what an ordinary loop has otherwise.

python examples/stateful_dataloader.py WORKSPACE [--steps N] [--checkpoint FILE]

The StatefulDataLoader goes on exactly where it was, with as many workers as it had. For another number of workers save
`batch.state` in its place, and give it to `stream.load_state_dict`; or use a `SelectingLoader`.
"""

import argparse
from itertools import islice
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchdata.stateful_dataloader import StatefulDataLoader

import rhostream as rho

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("workspace")
arguments.add_argument("--steps", type=int, default=None, help="of this call; the rest of the epoch where not given")
arguments.add_argument("--checkpoint", type=Path, help="go on from there if it exists, and write it at the end")
options = arguments.parse_args()

stream = rho.CandidateStream(options.workspace, il="strided_cnn", super_batch_size=320)  # rhostream
loader = StatefulDataLoader(stream, batch_size=None, num_workers=2)  # rhostream: batch_size=None
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
ledger = rho.Ledger(options.workspace, "stateful_dataloader", overwrite=True)  # rhostream
# rhostream: nothing is scored ahead, so that the loader's state is that after the batch in use
selector = rho.OnlineSelector(model, batch_size=32, select="learnable", score_ahead=False, ledger=ledger)
if options.checkpoint and options.checkpoint.exists():
    saved = torch.load(options.checkpoint, weights_only=True)
    loader.load_state_dict(saved["loader"])
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    selector.load_state_dict(saved["selector"])  # rhostream: its steps and ledger

for batch in islice(selector(loader), options.steps):
    loss = cross_entropy(model(batch.images), batch.labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {selector.step}: loss {loss.item():.3f}, {len(batch)} samples")

if options.checkpoint:
    kept = {"loader": loader, "model": model, "optimizer": optimizer, "selector": selector}
    torch.save({name: each.state_dict() for name, each in kept.items()}, options.checkpoint)
