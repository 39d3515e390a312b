"""timm's train loop on what RHO-LOSS selects; `# rhostream` marks the lines that timm's own has otherwise.

python examples/timm_loop.py WORKSPACE [--steps N] [--mixup X]

In timm's train script the same lines stand where it calls `create_loader` for training, with `--no-prefetcher`.
"""

import argparse

import torch
from timm import create_model
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter

import rhostream as rho

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("workspace")
arguments.add_argument("--steps", type=int, default=100, help="rounded up to whole epochs")
arguments.add_argument("--model", default="resnet18")
arguments.add_argument("--mixup", type=float, default=0.0, help="alpha of Mixup, which wants even batches")
options = arguments.parse_args()

stream = rho.CandidateStream(options.workspace, il="strided_cnn", super_batch_size=320)  # rhostream
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
model = create_model(options.model, num_classes=len(stream.corpus.classes)).to(device)
ledger = rho.Ledger(options.workspace, "timm_loop", overwrite=True)  # rhostream: for rho explain and rho report
selector = rho.OnlineSelector(model, batch_size=32, select="learnable", ledger=ledger)  # rhostream
# rhostream: for create_loader(…); its epochs have as many steps as they would have without selection
steps = stream.samples // 32
loader_train = rho.SelectingLoader(stream, selector, collate=rho.images_and_labels, epoch_steps=steps)

optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3)
epochs = -(-options.steps // len(loader_train))
lr_scheduler, epochs = create_scheduler_v2(
    optimizer, num_epochs=epochs, step_on_epochs=False, updates_per_epoch=len(loader_train)
)
mixup_fn = Mixup(options.mixup, num_classes=len(stream.corpus.classes)) if options.mixup else None
loss_function = SoftTargetCrossEntropy() if mixup_fn else LabelSmoothingCrossEntropy(0.1)
for epoch in range(epochs):
    if hasattr(loader_train.sampler, "set_epoch"):
        loader_train.sampler.set_epoch(epoch)
    losses, last = AverageMeter(), len(loader_train) - 1
    model.train()
    for batch_index, (images, target) in enumerate(loader_train):
        images, target = images.to(device), target.to(device)
        if mixup_fn is not None:
            images, target = mixup_fn(images, target)
        loss = loss_function(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.update(loss.item(), images.size(0))
        lr_scheduler.step_update(num_updates=epoch * len(loader_train) + batch_index + 1, metric=losses.avg)
        if batch_index == last:
            print(f"epoch {epoch}: loss {losses.avg:.3f} over {losses.count} samples")
    lr_scheduler.step(epoch + 1, losses.avg)
