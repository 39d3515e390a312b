"""torchtitan (FSDP2) on what RHO-LOSS selects: a small classifier; `# rhostream` marks what is changed.

torchrun --nproc-per-node 2 examples/torchtitan_trainer.py WORKSPACE [--steps N] [--output FOLDER]

torchtitan builds its data loader without the model, which scores the candidates: the trainer hands it over.
"""

import argparse
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy, relu
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.loss import BaseLoss
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.components.optimizer import LRSchedulersContainer, default_adamw
from torchtitan.components.tokenizer import BaseTokenizer
from torchtitan.config import DebugConfig, ParallelismConfig, TrainingConfig
from torchtitan.distributed.fsdp import disable_fsdp_gradient_division
from torchtitan.models.common.linear import Linear
from torchtitan.protocols import BaseModel
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.tools.logging import init_logger
from torchtitan.trainer import Trainer

import rhostream as rho


class Classifier(BaseModel):
    @dataclass(kw_only=True, slots=True)
    class Config(BaseModel.Config):
        pixels: int
        classes: int
        width: int = 64

        def update_from_config(self, *, config: Any, **kwargs: Any) -> None:
            pass

        def get_nparams_and_flops(self, model: torch.nn.Module, seq_len: int) -> tuple[int, int]:
            parameters = sum(each.numel() for each in model.parameters())
            return parameters, 6 * parameters

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.hidden = Linear.Config(in_features=config.pixels, out_features=config.width, bias=True).build()
        self.output = Linear.Config(in_features=config.width, out_features=config.classes, bias=True).build()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.output(relu(self.hidden(images.flatten(1))))
        return logits


def shard(model: torch.nn.Module, *, parallel_dims: Any, **_: Any) -> torch.nn.Module:
    sharded = fully_shard(model, mesh=parallel_dims.get_mesh("fsdp"))
    disable_fsdp_gradient_division(sharded)  # the loss is of all ranks
    sharded.set_force_sum_reduction_for_comms(True)  # on gloo, which scales no sums
    return model


class ClassificationLoss(BaseLoss):
    """The sum, which torchtitan divides by the number of labels on all ranks."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseLoss.Config):
        pass

    def __init__(self, config: Config, *, compile_config: Any = None) -> None:
        self.fn = lambda logits, labels: cross_entropy(logits.float(), labels, reduction="sum")


class NoTokenizer(BaseTokenizer):
    @dataclass(kw_only=True, slots=True)
    class Config(BaseTokenizer.Config):
        pass

    def __init__(self, config: Config, **_: Any) -> None:
        super().__init__()

    def encode(self, *arguments: Any, **options: Any) -> list[int]:
        raise NotImplementedError

    def decode(self, *arguments: Any, **options: Any) -> str:
        raise NotImplementedError

    def get_vocab_size(self) -> int:
        return 0


class SelectingDataLoader(BaseDataLoader):  # rhostream: from here
    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        super_batch_size: int = 320

    def __init__(self, config: Config, *, dp_rank: int, dp_world_size: int, local_batch_size: int, **_: Any) -> None:
        self.stream = rho.CandidateStream(
            str(config.dataset_path),
            il="strided_cnn",
            super_batch_size=config.super_batch_size,
            dp_rank=dp_rank,
            dp_world_size=dp_world_size,
        )
        self.batch_size = local_batch_size * dp_world_size  # sizes are those of all ranks

    def score_by(self, model: torch.nn.Module, *, overwrite: bool) -> None:
        self.ledger = rho.Ledger(self.stream.workspace, "torchtitan", overwrite=overwrite)
        selector = rho.OnlineSelector(model, batch_size=self.batch_size, select="learnable", ledger=self.ledger)
        self.loader = rho.SelectingLoader(self.stream, selector, collate=rho.images_and_labels)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        while True:
            for images, labels in self.loader:
                yield {"input": images}, labels

    def state_dict(self) -> dict[str, Any]:
        state = io.BytesIO()
        torch.save(self.loader.state_dict(), state)
        return {"loader": state.getvalue()}  # one value, the same on all ranks, which may be others when it is read

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loader.load_state_dict(torch.load(io.BytesIO(state_dict["loader"]), weights_only=True))


class SelectingTrainer(Trainer):
    @dataclass(kw_only=True, slots=True)
    class Config(Trainer.Config):
        pass

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.dataloader.score_by(self.model_parts[0], overwrite=not config.checkpoint.enable)

    def close(self) -> None:
        self.dataloader.ledger.close()
        super().close()  # rhostream: to here


arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("workspace")
arguments.add_argument("--steps", type=int, default=100, help="of the whole run")
arguments.add_argument("--output", help="go on from the checkpoint there, if there is one, and write one at the end")
options = arguments.parse_args()

corpus = rho.CorpusMetadata.read(rho.Workspace(options.workspace))
spec = corpus.image_spec()
model = Classifier.Config(pixels=spec.channels * spec.size**2, classes=len(corpus.classes))
init_logger()
trainer = SelectingTrainer.Config(
    model_spec=ModelSpec(
        name="classifier",
        flavor="small",
        model=model,
        parallelize_fn=shard,
        pipelining_fn=None,
        post_optimizer_build_fn=None,
        state_dict_adapter=None,
    ),
    loss=ClassificationLoss.Config(),
    tokenizer=NoTokenizer.Config(),
    optimizer=default_adamw(lr=1e-3),
    lr_scheduler=LRSchedulersContainer.Config(warmup_steps=0, min_lr_factor=1.0),
    training=TrainingConfig(
        local_batch_size=32 // int(os.environ["WORLD_SIZE"]), seq_len=1, steps=options.steps, disable_cuda_graphs=True
    ),
    parallelism=ParallelismConfig(spmd_backend="partial_dtensor"),  # the model names no placements
    dataloader=SelectingDataLoader.Config(dataset_path=options.workspace),  # rhostream
    metrics=MetricsProcessor.Config(log_freq=1),
    checkpoint=CheckpointManager.Config(
        enable=bool(options.output), interval=options.steps, last_save_model_only=False
    ),
    debug=DebugConfig(seed=0),
    dump_folder=options.output or "outputs",
).build()
trainer.train()
print(f"rank {torch.distributed.get_rank()}: {trainer.step} steps")
trainer.close()
torch.distributed.destroy_process_group()
