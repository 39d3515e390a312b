"""The optimizer of IL models and targets."""

import torch
from torch import nn


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW, as in arXiv 2206.07137.

    Fused: on a CPU the plain one takes longer than a small model's forward and backward pass together.
    """
    return torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
