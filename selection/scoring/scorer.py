"""The scoring pass: a forward pass over all candidates that leaves no trace in the model or its training."""

import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parallel import DistributedDataParallel

from rhostream.errors import ConfigError
from rhostream.loaders.stream import Batch
from rhostream.selection.tasks import Classification, Criterion, Forward, Task, logits_of

BatchNormPolicy = Literal["batch", "eval"]
ScoringPrecision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """How the scoring pass runs. `benchmarks/scoring.py` measures what each gives on a machine.

    Attributes:
        batchnorm: see `scoring_mode`.
        precision: of convolutions and matrix products; losses are float32. The lower ones pay where the processor
            computes in them (GPUs; CPUs with AVX-512 BF16 or AMX), and elsewhere cost time; scores move by rounding.
            "float32" leaves things as the caller has them, an autocast around the call included.
        channels_last: lay the images out so. It pays for convolutions in lower precision on tensor cores, and on some
            CPUs; the model's own layout stays. Scores move by rounding.
        compile: run the pass through torch.compile, once a compiler is there; training stays as it is. The first pass
            and the first of another shape compile, which takes seconds to a minute. Scores move by rounding.
        size: shrink the images to this many pixels a side before the pass, with antialiasing; None scores them as they
            are. Its cost falls with the square of the side, and the scores are those of coarser images. For models that
            take any size. (Thumbnails also spares their reading and decoding.)
    """

    batchnorm: BatchNormPolicy = "batch"
    precision: ScoringPrecision = "float32"
    channels_last: bool = False
    compile: bool = False
    size: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("batchnorm", get_args(BatchNormPolicy)), ("precision", get_args(ScoringPrecision))):
            if getattr(self, name) not in known:
                raise ConfigError(f"scoring {name} {getattr(self, name)!r}: choose one of {', '.join(known)}")
        if self.size is not None and self.size < 1:
            raise ConfigError(f"scoring size {self.size}: give the pixels of a side, or None")


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
def scoring_mode(
    model: nn.Module, batchnorm: BatchNormPolicy = "batch", *, keep_generators: bool = True
) -> Iterator[None]:
    """Within the block the model can be run on candidates without a trace.

    Dropout and the like are off; no gradient; the random generators are put back afterwards. BatchNorm uses the
    statistics of the candidates ("batch", as the paper does: section 3 of its appendix) or its running ones ("eval");
    in either case its buffers stay untouched. SyncBatchNorm uses those of this rank's candidates, so that no rank
    waits for another one. Where parameters are shared out (FSDP2), all ranks run it together.

    Args:
        keep_generators: put torch's random generators back; False where another thread draws from them meanwhile.
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
        devices = [device] if device.type == "cuda" else []
        # Parameters that are gathered for the pass would be inference tensors, which no training can use.
        without_gradient = torch.no_grad() if _has_parts(model) else torch.inference_mode()
        with torch.random.fork_rng(devices, enabled=keep_generators), without_gradient:
            yield
    finally:
        _release_gathered(model)
        for norm in synced:
            norm.__dict__.pop("forward", None)
        for norm, track in tracked:
            norm.track_running_stats = track
        for module, training in was_training:
            module.training = training


def _has_parts(model: nn.Module) -> bool:
    """Has this process parts of the parameters alone?"""
    tensors = sys.modules.get("torch.distributed.tensor")  # who has such parameters has imported it
    if tensors is not None and any(isinstance(each, tensors.DTensor) for each in model.parameters()):
        return True
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and any(isinstance(each, fsdp.FullyShardedDataParallel) for each in model.modules())


def _release_gathered(model: nn.Module) -> None:
    """Have FSDP gather the parameters anew: else the next pass would see those of before the optimizer's step."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None:
        return
    for module in model.modules():
        if isinstance(module, fsdp.FSDPModule):
            module.reshard()
        elif isinstance(module, fsdp.FullyShardedDataParallel):
            # The first version, which keeps the outermost gathered, and has no method for this.
            handle = module._handle
            if handle is not None and handle.uses_sharded_strategy and not handle.needs_unshard():
                fsdp._runtime_utils._reshard(module, handle, True)


class Scorer:
    """What the model in training makes of candidates.

    Args:
        model: of a DistributedDataParallel the module inside is run.
        task: what goes into the model and what the loss is; a classification by default.
        forward, criterion: those of the task, in place of its own.
        seed: of the dropout in `draws`.

    Attributes:
        draw_calls: calls of `draws` so far.
    """

    def __init__(
        self,
        model: nn.Module,
        options: ScoringOptions = ScoringOptions(),
        *,
        task: Task = Classification(),
        forward: Forward | None = None,
        criterion: Criterion | None = None,
        seed: int = 0,
    ) -> None:
        self.model = without_ddp(model)
        self.options = options
        self.task = task.using(forward=forward, criterion=criterion)
        self._seed = seed
        self.draw_calls = 0
        compiled = options.compile and not hasattr(self.model, "_orig_mod")
        self._compiled: Callable[..., Any] | None = torch.compile(self.model) if compiled else None

    def outputs(self, batch: Batch) -> Any:
        """The outputs of the model for a batch of normalized fields on its device.

        Raises:
            ConfigError: the model does not take images of `options.size`, or there is no compiler.
        """
        with self._running(batch.labels.device):
            return self._forward(self._prepared(batch), self._compiled or self.model)

    def losses(self, batch: Batch) -> Tensor:
        """float32 (n,), the loss of each sample; otherwise as `outputs`."""
        return self.task.losses(self.outputs(batch), batch)

    def logits(self, images: Tensor) -> Tensor:
        """float32 (n, classes) for normalized images float32 (n, C, H, W); otherwise as `outputs`."""
        return logits_of(self.outputs(_unlabeled(images)))

    def draws(self, batch: Batch | Tensor, k: int = 10) -> Tensor:
        """float32 (k, n, classes): logits of k passes with dropout on (MC dropout: Gal & Ghahramani, 2016).

        All else is as in `outputs` (a tensor is that of the images). The random numbers come from a stream of their
        own, a function of the seed and the number of calls before, so that those of the training stay as they were. Not
        compiled.

        Raises:
            ConfigError: the model has no dropout, so that all draws would be the same; or as of `outputs`.
        """
        batch = _unlabeled(batch) if isinstance(batch, Tensor) else batch
        device = batch.labels.device
        dropouts = [module for module in self.model.modules() if isinstance(module, _DropoutNd) and module.p > 0]
        if not dropouts:
            raise ConfigError(
                f"{type(self.model).__name__} has no dropout module with p above 0, so that all draws would be the "
                "same: add an nn.Dropout, or use a selection function without draws"
            )
        with self._running(device):
            for module in dropouts:
                module.training = True  # `scoring_mode` puts it back
            seed_generators(f"draws/{self._seed}/{self.draw_calls}", device)
            self.draw_calls += 1
            prepared = self._prepared(batch)
            return torch.stack([logits_of(self._forward(prepared, self.model)) for _ in range(k)])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must carry for the draws to go on as they would have."""
        return {"draw_calls": self.draw_calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.draw_calls = state["draw_calls"]

    @contextlib.contextmanager
    def _running(self, device: torch.device) -> Iterator[None]:
        with scoring_mode(self.model, self.options.batchnorm), self.autocast(device):
            yield

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """The precision of the options, or the caller's; weights cast in inference mode are not kept for training."""
        precision: torch.dtype = getattr(torch, self.options.precision)
        if precision == torch.float32:
            if not torch.is_autocast_enabled(device.type):
                return contextlib.nullcontext()
            precision = torch.get_autocast_dtype(device.type)
        context: AbstractContextManager[None] = torch.autocast(device.type, precision, cache_enabled=False)
        return context

    def _prepared(self, batch: Batch) -> Batch:
        """With its images as the options say."""
        if "image" not in batch.fields:
            return batch
        images, size = batch.images, self.options.size
        if size is not None and size < max(images.shape[2:]):
            images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        if self.options.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return batch if images is batch.images else replace(batch, fields={**batch.fields, "image": images})

    def _forward(self, batch: Batch, run: Callable[..., Any]) -> Any:
        try:
            return self.task.outputs(run, batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if missing := _missing_compiler(error):
                raise ConfigError(
                    f"scoring with compile: torch.compile has no compiler to work with ({missing}); install one "
                    "(Debian: apt install g++ python3-dev), or leave compile out"
                ) from error
            if self.options.size is not None and "image" in batch.fields and self.options.size == batch.images.shape[3]:
                raise ConfigError(
                    f"scoring size {self.options.size}: the model takes no images of it ({_first_line(error)}); leave "
                    "size out, or use a model that takes any size"
                ) from error
            raise


def _unlabeled(images: Tensor) -> Batch:
    return Batch(fields={"image": images}, labels=images.new_empty(len(images), 0))


def _missing_compiler(error: RuntimeError) -> str | None:
    """What torch.compile says where it finds no compiler for the CPU or the GPU, or none that works."""
    cause = getattr(error, "inner_exception", None)
    if type(cause).__name__ in ("InvalidCxxCompiler", "CppCompileError", "TritonMissing"):
        return _first_line(cause)
    return _first_line(cause) if "Failed to find C compiler" in str(cause) else None


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().partition("\n")[0][:200]


def seed_generators(stream: str, device: torch.device) -> None:
    """Seed torch's generators of the CPU and of this device with the name of a stream; to be called in a fork_rng."""
    seed = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest()) >> 1
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)
