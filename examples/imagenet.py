"""A script of the shape of PyTorch's ImageNet example, on what RHO-LOSS selects; `# rhostream` marks what is changed.

python examples/imagenet.py WORKSPACE [--arch resnet18] [--epochs 90] [--resume FILE]
torchrun --nproc-per-node 8 examples/imagenet.py WORKSPACE

An epoch has as many steps as it would have without selection, so that its step decay by epochs stays as it is.
"""

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
import torchvision.models
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import rhostream as rho

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("workspace")
parser.add_argument("--arch", default="resnet18")
parser.add_argument("--il", default="strided_cnn")
parser.add_argument("--epochs", type=int, default=90)
parser.add_argument("--batch-size", type=int, default=256, help="of all processes")
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--resume", type=Path, help="a checkpoint to go on from, written after each epoch")


def main() -> None:
    args = parser.parse_args()
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group()
    device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu")

    stream = rho.CandidateStream(args.workspace, il=args.il, super_batch_size=10 * args.batch_size)  # rhostream
    network: nn.Module = torchvision.models.get_model(args.arch, num_classes=len(stream.corpus.classes)).to(device)
    model = DistributedDataParallel(network) if ranks > 1 else network
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=30, gamma=0.1)

    ledger = rho.Ledger(args.workspace, "imagenet", overwrite=not args.resume)  # rhostream
    selector = rho.OnlineSelector(model, batch_size=args.batch_size, select="learnable", ledger=ledger)  # rhostream
    steps = stream.samples // args.batch_size  # rhostream
    train_loader = rho.SelectingLoader(stream, selector, rho.images_and_labels, epoch_steps=steps)  # rhostream
    val_loader = DataLoader(rho.EvaluationStream(args.workspace), batch_size=args.batch_size // ranks)  # rhostream

    first = 0
    if args.resume and args.resume.exists():
        state = torch.load(args.resume, map_location=device, weights_only=True)
        first = state["epoch"]
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        train_loader.load_state_dict(state["loader"])  # rhostream
    for epoch in range(first, args.epochs):
        train_loader.set_epoch(epoch)
        loss = train(train_loader, model, criterion, optimizer, device)
        accuracy = validate(val_loader, model, device)
        scheduler.step()
        loader = train_loader.state_dict()  # rhostream: on every rank, which writes its ledger
        print(f"epoch {epoch}: {len(train_loader)} steps, loss of the selected {loss:.3f}, accuracy {accuracy:.1%}")
        if args.resume and int(os.environ.get("RANK", "0")) == 0:
            state = {"epoch": epoch + 1, "model": network.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "scheduler": scheduler.state_dict(), "loader": loader}, args.resume)
    if ranks > 1:
        dist.destroy_process_group()


def train(
    loader: rho.SelectingLoader,
    model: nn.Module,
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> float:
    """One epoch; the mean loss of its batches."""
    model.train()
    total = 0.0
    for images, target in loader:
        images, target = images.to(device, non_blocking=True), target.to(device, non_blocking=True)
        loss = criterion(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


@torch.no_grad()
def validate(
    loader: "DataLoader[tuple[torch.Tensor, int | torch.Tensor]]", model: nn.Module, device: torch.device
) -> float:
    """Share of right predictions on this rank's part of the split."""
    model.eval()
    right = [(model(images.to(device)).argmax(1) == target.to(device)).float() for images, target in loader]
    return float(torch.cat(right).mean())


if __name__ == "__main__":
    main()
