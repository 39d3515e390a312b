"""The scoring pass: a forward pass over all candidates that leaves no trace in the model or its training."""

import contextlib
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

BatchNormPolicy = Literal["batch", "eval"]


def without_ddp(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, whose forward broadcasts buffers and waits for the other ranks.

    A compiled model stays compiled, unless what was compiled is a DistributedDataParallel.
    """
    if isinstance(model, DistributedDataParallel):
        return without_ddp(model.module)
    compiled = getattr(model, "_orig_mod", None)
    if isinstance(compiled, DistributedDataParallel):
        return without_ddp(compiled)
    return model


@contextlib.contextmanager
def scoring_mode(model: nn.Module, batchnorm: BatchNormPolicy = "batch") -> Iterator[None]:
    """Within the block the model can be run on candidates without a trace.

    Dropout and the like are off; no gradient; the random generators are put back afterwards. BatchNorm uses the
    statistics of the candidates ("batch", as the paper does: section 3 of its appendix) or its running ones ("eval");
    in either case its buffers stay untouched. SyncBatchNorm uses those of this rank's candidates, so that no rank
    waits for another one.
    """
    was_training = [(module, module.training) for module in model.modules()]
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)] if batchnorm == "batch" else []
    synced = [norm for norm in norms if isinstance(norm, nn.SyncBatchNorm)]
    tracked = [(norm, norm.track_running_stats) for norm in norms]
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        model.eval()
        for norm in norms:
            norm.training = True
            # With training on and tracking off, torch uses the batch's statistics and is not given the buffers.
            norm.track_running_stats = False
        for norm in synced:
            norm.__dict__["forward"] = MethodType(_BatchNorm.forward, norm)
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.inference_mode():
            yield
    finally:
        for norm in synced:
            norm.__dict__.pop("forward", None)
        for norm, track in tracked:
            norm.track_running_stats = track
        for module, training in was_training:
            module.training = training


class Scorer:
    """Logits of candidates under the model in training.

    Args:
        model: any module from images (n, C, H, W) to logits (n, classes), or to an output with an attribute `logits`.
            Of a DistributedDataParallel the module inside is run.
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
        self.model = without_ddp(model)
        self._batchnorm: BatchNormPolicy = batchnorm
        self._autocast = autocast or contextlib.nullcontext

    def logits(self, images: Tensor) -> Tensor:
        """float32 (n, classes) for normalised images float32 (n, C, H, W) on the model's device."""
        with scoring_mode(self.model, self._batchnorm), self._autocast():
            output = self.model(images)
        logits: Tensor = getattr(output, "logits", output)
        return logits.float()
