"""Ray Train on what RHO-LOSS selects; `# rhostream` marks the lines that an ordinary script has otherwise.

python examples/ray_train.py WORKSPACE [--workers N] [--steps N] [--save-every N] [--storage FOLDER]

The loader is not given to `prepare_data_loader`: its batches are of this worker already, and on the model's device. A
worker that dies has the job begin again from its last checkpoint, in the middle of the epoch.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from ray import train
from ray.train.torch import TorchTrainer, prepare_model
from torch import cuda, nn
from torch.nn.functional import cross_entropy

import rhostream as rho


def train_on_worker(settings: dict[str, Any]) -> None:
    import torch  # here: of a global `torch` Ray pickles what has a name that occurs below, as `torch.classes` has

    stream = rho.CandidateStream(settings["workspace"], il="strided_cnn", super_batch_size=320)  # rhostream
    network = nn.Sequential(
        nn.Conv2d(stream.corpus.image_spec().channels, 32, 3, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, len(stream.corpus.classes)),
    )
    model = prepare_model(network)
    optimizer = torch.optim.AdamW(model.parameters())
    begun = train.get_checkpoint()
    ledger = rho.Ledger(settings["workspace"], "ray_train", overwrite=begun is None)  # rhostream: for rho explain
    selector = rho.OnlineSelector(model, batch_size=32, select="learnable", ledger=ledger)  # rhostream: of all workers
    loader = rho.SelectingLoader(stream, selector, collate=rho.images_and_labels)  # rhostream: for DataLoader(…)
    step = 0
    if begun is not None:
        with begun.as_directory() as folder:
            state = torch.load(Path(folder, "state.pt"), weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        loader.load_state_dict(state["loader"])  # rhostream
        step = state["step"]
    while step < settings["steps"]:
        for images, labels in loader:  # the rest of an epoch
            loss = cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if step % settings["save_every"] == 0 or step == settings["steps"]:
                state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
                state["loader"] = loader.state_dict()  # rhostream: on every worker, the same on all
                with tempfile.TemporaryDirectory() as folder:
                    torch.save(state, Path(folder, "state.pt"))
                    saved = train.Checkpoint.from_directory(folder)
                    first = train.get_context().get_world_rank() == 0
                    train.report({"step": step, "loss": loss.item()}, checkpoint=saved if first else None)
            if step == settings["steps"]:
                break
    ledger.close()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("workspace", help="a folder that all workers find by this name, or a URL")
    arguments.add_argument("--workers", type=int, default=2, help="0 for those that torchrun has started")
    arguments.add_argument("--steps", type=int, default=100)
    arguments.add_argument("--save-every", type=int, default=50)
    arguments.add_argument("--storage", help="where Ray keeps checkpoints, for all machines; default: the home folder")
    options = arguments.parse_args()
    trainer = TorchTrainer(
        train_on_worker,
        train_loop_config={
            "workspace": str(Path(options.workspace).resolve()),
            "steps": options.steps,
            "save_every": options.save_every,
        },
        scaling_config=train.ScalingConfig(num_workers=options.workers, use_gpu=cuda.is_available()),
        run_config=train.RunConfig(storage_path=options.storage, failure_config=train.FailureConfig(max_failures=3)),
    )
    result = trainer.fit()
    print(f"{result.metrics['step']} steps, loss {result.metrics['loss']:.3f}")
