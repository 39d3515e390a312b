"""A step of a second model that is trained along with the learner, on what was selected for it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rhostream.selection.scoring import seed_generators
from rhostream.selection.selected_batch import SelectedBatch


def co_train(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, batch: SelectedBatch, random: str
) -> None:
    """One step on the weighted cross-entropy of the batch, whose images are these, (n_b, C, H, W).

    Args:
        random: names the stream of random numbers (dropout); those of the learner's training stay as they were.
    """
    device = images.device
    model.train()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
        seed_generators(random, device)
        output = model(images)
        logits = getattr(output, "logits", output)
        losses = F.cross_entropy(logits, batch.labels.to(device), reduction="none")
        (losses * batch.weights.to(device)).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
