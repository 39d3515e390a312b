"""Lightning on what RHO-LOSS selects; `# rhostream` marks the lines that an ordinary script has otherwise.

python examples/lightning_trainer.py WORKSPACE [--steps N] [--resume CHECKPOINT]

Checkpoints hold the loader's position: `ckpt_path` continues in the middle of an epoch. With several devices the stream
gives each its own candidates, and `Trainer(use_distributed_sampler=…)` makes no difference.
"""

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rhostream as rho


class Classifier(LightningModule):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = cross_entropy(self(images), labels)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters())


arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("workspace")
arguments.add_argument("--steps", type=int, default=100)
arguments.add_argument("--resume", help="a checkpoint to go on from")
options = arguments.parse_args()

stream = rho.CandidateStream(options.workspace, il="strided_cnn", super_batch_size=320)  # rhostream
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
module = Classifier(network)
ledger = rho.Ledger(options.workspace, "lightning_trainer", overwrite=True)  # rhostream: for rho explain and rho report
selector = rho.OnlineSelector(module, batch_size=32, select="learnable", ledger=ledger)  # rhostream
loader = rho.SelectingLoader(stream, selector, collate=rho.images_and_labels)  # rhostream: for DataLoader(dataset, …)
trainer = Trainer(max_steps=options.steps, logger=False)
trainer.fit(module, loader, ckpt_path=options.resume)
print(f"{trainer.global_step} steps, loss {trainer.callback_metrics['loss'].item():.3f}")
