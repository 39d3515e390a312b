"""The average of the weights that a model has had while it was trained."""

from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

#: The average leaves out the beginning by so much: a larger one reaches back less far.
_FORGETS: Final = 9


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of a model that is an exponential moving average of it, by `update_parameters` after each step.

    The n-th step's weights come in with 1 - (1 + n) / (10 + n), so that the average always reaches back over about
    the last ninth of the steps, until that is 1 - `decay`. Running statistics are averaged, too. What counts and is not
    averaged is copied.

    Args:
        decay: of the average at most, above 0 and below 1.
    """
    return AveragedModel(model, multi_avg_fn=partial(_move, decay), use_buffers=True)


@torch.no_grad()
def _move(decay: float, averages: list[Tensor], current: list[Tensor], steps: Tensor | int) -> None:
    if averages[0].is_floating_point():
        share = 1 - min(decay, (1 + int(steps)) / (1 + _FORGETS + int(steps)))
        torch._foreach_lerp_(averages, current, share)
    else:
        for average, value in zip(averages, current, strict=True):
            average.copy_(value)
