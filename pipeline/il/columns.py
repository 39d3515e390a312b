"""What an IL table says of samples, of the outputs of an IL model: by the task of the corpus."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rhostream.loaders.index import Labels
from rhostream.loaders.stream import make_targets


def il_outputs(logits: Tensor, task: str) -> Tensor:
    """What `il_columns` takes, of logits (n, classes): float64, log-probabilities but for a multi-label corpus."""
    return logits.double() if task == "multi_label" else functional.log_softmax(logits.double(), 1)


def il_columns(outputs: Tensor, labels: Labels) -> dict[str, Any]:
    """Columns of `rhostream.schema.IL`, each (n,): the loss of the corpus's task, and what the model predicts.

    Args:
        outputs: of `il_outputs`, on the CPU.
    """
    targets = make_targets(labels, outputs.shape[1])
    if targets.dim() == 2:
        return {"labels": labels, **_of_lists(outputs, targets)}
    return {"label": labels, **_of_classes(outputs, targets)}


def _of_classes(log_p: Tensor, targets: Tensor) -> dict[str, Any]:
    best, predicted = log_p.max(1)
    return {
        "il": -log_p.gather(1, targets[:, None])[:, 0].float().numpy(),
        "predicted": predicted.int().numpy(),
        "confidence": best.exp().float().numpy(),
        "entropy": torch.special.entr(log_p.exp()).sum(1).float().numpy(),
    }


def _of_lists(logits: Tensor, targets: Tensor) -> dict[str, Any]:
    """Binary cross-entropy, and entropy of each class's probability: means over the classes, as the task's loss is."""
    losses = functional.binary_cross_entropy_with_logits(logits, targets.double(), reduction="none")
    p = logits.sigmoid()
    entropies = torch.special.entr(p) + torch.special.entr(1 - p)
    return {"il": losses.mean(1).float().numpy(), "entropy": entropies.mean(1).float().numpy()}
