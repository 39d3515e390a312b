"""The average of the weights that a model has while it is trained."""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

_POWER: Final = 6.94  # of the average over the training: a standard deviation of a tenth of its length


@torch.no_grad()
def average_in(average: nn.Module, model: nn.Module, step: int) -> None:
    """Take a model's weights after a step into their average over the training; BatchNorm's statistics, too.

    The last tenth or so of the steps counts most, however many they are (Karras et al., 2024, arXiv 2312.02696,
    section 3: power-function averages). At a constant learning rate the average at any step is about as good as the end
    of a schedule that was made for that step.

    Args:
        average: a copy of the model; after the first step it is equal to it.
        step: 1 is the first.
    """
    share = 1 - (1 - 1 / step) ** (_POWER + 1)
    for averages, now in zip(_averaged(average), _averaged(model), strict=True):
        torch._foreach_lerp_(averages, now, share)


def _averaged(model: nn.Module) -> Iterator[list[Tensor]]:
    """Parameters and buffers of the state, each once, and apart, as FSDP2 shares out the former alone.

    What a model does not keep in its state is no statistic, but for instance a mask of infinities.
    """
    state = {id(value): value for value in model.state_dict(keep_vars=True).values() if value.is_floating_point()}
    for kept in (True, False):
        if found := [value.detach() for value in state.values() if isinstance(value, nn.Parameter) is kept]:
            yield found
