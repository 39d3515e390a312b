"""A gradient step of a second model that is trained along with the learner, on what was selected for it."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from rhostream.selection.scoring import seed_generators
from rhostream.selection.selected_batch import SelectedBatch
from rhostream.selection.tasks import Task


def co_train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    fields: Mapping[str, Tensor],
    batch: SelectedBatch,
    random: str,
) -> None:
    """One step on the weighted losses of the batch.

    Args:
        fields: what the model takes, in place of those of the batch.
        random: names the stream of random numbers (dropout); those of the learner's training stay as they were.
    """
    device = next(iter(fields.values())).device
    given = replace(batch.to(device), fields=dict(fields))
    model.train()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
        seed_generators(random, device)
        losses = task.losses(task.outputs(model, given), given)
        (losses * given.weights).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
