"""FSDP2, with tensor parallelism where asked for, on what RHO-LOSS selects; `# rhostream` marks what is changed.

torchrun --nproc-per-node 4 examples/fsdp2.py WORKSPACE [--tensor-parallel 2] [--steps N] [--checkpoint FOLDER]

The state of loader, selector and stream is one value of bytes in the distributed checkpoint, the same on all ranks.
"""

import argparse
import io
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.functional import cross_entropy

import rhostream as rho

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("workspace")
arguments.add_argument("--tensor-parallel", type=int, default=1)
arguments.add_argument("--steps", type=int, default=100, help="of this call")
arguments.add_argument("--checkpoint", help="go on from there if it exists, and write it at the end")
options = arguments.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
dist.init_process_group()
if device == "cuda":
    torch.cuda.set_device(dist.get_rank() % torch.cuda.device_count())
shape = (dist.get_world_size() // options.tensor_parallel, options.tensor_parallel)
mesh = init_device_mesh(device, shape, mesh_dim_names=("dp", "tp"))

stream = rho.CandidateStream(options.workspace, il="strided_cnn", super_batch_size=320, mesh=mesh["dp"])  # rhostream
torch.manual_seed(0)
pixels = stream.corpus.image_spec().channels * stream.corpus.image_spec().size ** 2
model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 64), nn.ReLU(), nn.Linear(64, len(stream.corpus.classes)))
model.to(device)
if options.tensor_parallel > 1:
    parallelize_module(model, mesh["tp"], {"1": ColwiseParallel(), "3": RowwiseParallel()})
fully_shard(model, mesh=mesh["dp"])
optimizer = torch.optim.AdamW(model.parameters())

ledger = rho.Ledger(options.workspace, "fsdp2", overwrite=not options.checkpoint)  # rhostream
selector = rho.OnlineSelector(model, batch_size=32, select="learnable", ledger=ledger)  # rhostream: sizes of all ranks
loader = rho.SelectingLoader(stream, selector, collate=rho.images_and_labels)  # rhostream: for DataLoader(dataset, …)


def state() -> dict[str, Any]:
    of_model, of_optimizer = get_state_dict(model, optimizer)
    of_loader = io.BytesIO()
    torch.save(loader.state_dict(), of_loader)  # rhostream
    return {"model": of_model, "optimizer": of_optimizer, "loader": of_loader.getvalue()}


if options.checkpoint and Path(options.checkpoint).exists():
    found = state()
    load(found, checkpoint_id=options.checkpoint)
    set_state_dict(model, optimizer, model_state_dict=found["model"], optim_state_dict=found["optimizer"])
    loader.load_state_dict(torch.load(io.BytesIO(found["loader"]), weights_only=True))  # rhostream

step = 0
while step < options.steps:
    for images, labels in loader:  # the rest of an epoch
        loss = cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        print(f"rank {dist.get_rank()}, step {step}: loss {loss.item():.3f}, {len(images)} samples")
        if step == options.steps:
            break
if options.checkpoint:
    save(state(), checkpoint_id=options.checkpoint)
ledger.close()
dist.destroy_process_group()
