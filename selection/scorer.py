"""The scoring pass: a forward pass over all candidates that leaves no trace in the model or its training."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

BatchNormPolicy = Literal["batch", "eval"]


@contextlib.contextmanager
def scoring_mode(model: nn.Module, batchnorm: BatchNormPolicy = "batch") -> Iterator[None]:
    """Within the block the model can be run on candidates without a trace.

    Dropout and the like are off; no gradient; the random generators are put back afterwards. BatchNorm uses the
    statistics of the candidates ("batch", as the paper does: section 3 of its appendix) or its running ones ("eval");
    in either case its buffers stay untouched.
    """
    was_training = [(module, module.training) for module in model.modules()]
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)] if batchnorm == "batch" else []
    tracked = [(norm, norm.track_running_stats) for norm in norms]
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        model.eval()
        for norm in norms:
            norm.training = True
            # With training on and tracking off, torch uses the batch's statistics and is not given the buffers.
            norm.track_running_stats = False
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.inference_mode():
            yield
    finally:
        for norm, track in tracked:
            norm.track_running_stats = track
        for module, training in was_training:
            module.training = training


class Scorer:
    """Logits of candidates under the model in training.

    Args:
        model: any module from images (n, C, H, W) to logits (n, classes).
        batchnorm: see `scoring_mode`.
        autocast: makes the context of lower precision to run in; full precision where None.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        batchnorm: BatchNormPolicy = "batch",
        autocast: Callable[[], contextlib.AbstractContextManager[None]] | None = None,
    ) -> None:
        self.model = model
        self._batchnorm: BatchNormPolicy = batchnorm
        self._autocast = autocast or contextlib.nullcontext

    def logits(self, images: Tensor) -> Tensor:
        """float32 (n, classes) for normalised images float32 (n, C, H, W) on the model's device."""
        with scoring_mode(self.model, self._batchnorm), self._autocast():
            logits: Tensor = self.model(images)
        return logits.float()
