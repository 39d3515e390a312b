"""The optimizers of IL models and targets."""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn

from rhostream.errors import ConfigError
from rhostream.selection.tasks import Pairs, Task

#: On a CPU the plain one takes longer than a small model's forward and backward pass together.
_FUSED: Final = ("Adam", "AdamW", "SGD")
_UNFIT: Final = {
    "Optimizer": "it is the base of the others",
    "LBFGS": "it wants the loss computed several times a step",
    "SparseAdam": "it takes sparse gradients alone",
}


#: Of AdamW for pairs: with PyTorch's own second one the sigmoid loss stays long where it begins.
_OF_PAIRS: Final = {"betas": (0.9, 0.95)}


def usual_options(name: str, task: Task) -> Mapping[str, Any]:
    """Arguments of this optimizer that a task wants to be others than PyTorch's."""
    return _OF_PAIRS if isinstance(task, Pairs) and name.lower() == "adamw" else {}


def make_optimizer(
    name: str, model: nn.Module, learning_rate: float, weight_decay: float, options: Mapping[str, Any] | None = None
) -> torch.optim.Optimizer:
    """A `torch.optim` optimizer of the model's parameters, fused where that is faster and gives the same.

    Args:
        name: of its class, in any case.
        options: further arguments of the class.

    Raises:
        ConfigError: no such class, or arguments that it does not take.
    """
    known: dict[str, Any] = {
        each: kind
        for each, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)
    }
    by_case = {each.lower(): each for each in known}
    found = by_case.get(name.lower())
    if found is None:
        close = difflib.get_close_matches(name.lower(), by_case, 1)
        hint = (
            f"did you mean {by_case[close[0]]}?"
            if close
            else f"known are {', '.join(sorted(set(known) - set(_UNFIT)))}"
        )
        raise ConfigError(f"optimizer {name!r} is not in torch.optim: {hint}")
    if found in _UNFIT:
        raise ConfigError(f"optimizer {name!r}: {_UNFIT[found]}; choose another, AdamW for instance")
    takes = inspect.signature(known[found]).parameters
    arguments = {**(options or {}), **({"weight_decay": weight_decay} if weight_decay else {})}
    if unknown := sorted(arguments.keys() - takes.keys()):
        raise ConfigError(f"optimizer {found} takes no {unknown[0]}: leave it out (a weight decay: set it to 0)")
    if "weight_decay" in takes:
        arguments["weight_decay"] = weight_decay  # 0, where the class has another default
    fused = {"fused": True} if found in _FUSED else {}
    try:
        optimizer: torch.optim.Optimizer = known[found](model.parameters(), lr=learning_rate, **{**fused, **arguments})
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"optimizer {found} with {arguments}: {reason}; give other settings or another") from error
    return optimizer


def clip_gradients(model: nn.Module, norm: float) -> None:
    """Scale all gradients down together where their Euclidean norm is above this; 0 leaves them as they are.

    Where parameters are shared out by FSDP2, the norm is that of all of them.
    """
    if norm:
        torch.nn.utils.clip_grad_norm_(model.parameters(), norm)
