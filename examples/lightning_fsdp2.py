"""Lightning with FSDP2 on what RHO-LOSS selects; `# rhostream` marks the lines that an ordinary script has otherwise.

python examples/lightning_fsdp2.py WORKSPACE [--devices N] [--steps N]

The loader is made where Lightning asks for it, once the mesh is there; its state goes into the sharded checkpoint.
"""

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy

import rhostream as rho

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("workspace")
arguments.add_argument("--devices", type=int, default=2, help="of this machine")
arguments.add_argument("--steps", type=int, default=100)
options = arguments.parse_args()


class Classifier(LightningModule):
    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(channels, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, classes),
        )

    def configure_model(self) -> None:
        assert self.device_mesh is not None
        fully_shard(self.network, mesh=self.device_mesh["data_parallel"])

    def train_dataloader(self) -> rho.SelectingLoader:  # rhostream: from here
        assert self.device_mesh is not None
        stream = rho.CandidateStream(
            options.workspace, il="strided_cnn", super_batch_size=320, mesh=self.device_mesh["data_parallel"]
        )
        ledger = rho.Ledger(options.workspace, "lightning_fsdp2", overwrite=True)
        selector = rho.OnlineSelector(self, batch_size=32, select="learnable", ledger=ledger)  # sizes of all ranks
        return rho.SelectingLoader(stream, selector, collate=rho.images_and_labels)  # rhostream: to here

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


corpus = rho.CorpusMetadata.read(rho.Workspace(options.workspace))
module = Classifier(corpus.image_spec().channels, len(corpus.classes))
strategy = ModelParallelStrategy(data_parallel_size=options.devices, tensor_parallel_size=1)
trainer = Trainer(max_steps=options.steps, devices=options.devices, strategy=strategy, logger=False)
trainer.fit(module)
print(f"rank {trainer.global_rank}: {trainer.global_step} steps, loss {trainer.callback_metrics['loss'].item():.3f}")
