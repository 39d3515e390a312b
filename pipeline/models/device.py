"""Where and how precisely a model runs, and the random state that a checkpoint must carry."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final, Literal

import torch
from torch import nn

from rhostream.errors import ConfigError
from rhostream.loaders.storage import launched
from rhostream.pipeline.config import Precision

_M_TRIM_THRESHOLD: Final = -1  # of glibc's malloc.h, as the next
_M_MMAP_MAX: Final = -4


def choose_device(name: str = "auto") -> torch.device:
    """The device for "auto" (CUDA where there is one, else the CPU), "cpu", "cuda" or "cuda:N".

    Under torchrun "auto" and "cuda" are each process's own GPU.

    Raises:
        ConfigError: no such device on this machine.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    own = launched("LOCAL_RANK", 0)
    if name == "auto" and not available:
        return torch.device("cpu")
    if name in ("auto", "cuda") and available and own >= available:
        raise ConfigError(
            f"device {name!r}: process {own + 1} of this machine has no GPU of its own, {available} are there: start "
            f"{available} with --nproc-per-node, or use --device cpu"
        )
    if name == "auto":
        return torch.device("cuda", own)
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise ConfigError(f"device {name!r} is not known: choose auto, cpu, cuda or cuda:N")
    if not available:
        raise ConfigError(
            f"device {name!r}: torch {torch.__version__} sees no CUDA device here; check the driver and "
            "that torch is a CUDA build, or use --device cpu"
        )
    index = own if device.index is None else device.index
    if index >= available:
        raise ConfigError(
            f"device {name!r}: this machine has {available} CUDA device(s), cuda:0 to cuda:{available - 1}"
        )
    return torch.device("cuda", index)


def resolve_precision(device: torch.device, precision: Precision) -> Literal["float32", "bfloat16"]:
    """What "auto" means on this device: bfloat16 on a CUDA device that computes in it, else float32."""
    if precision != "auto":
        return precision
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if fast else "float32"


def has_bfloat16_tiles(device: torch.device) -> bool:
    """Is it a CPU that multiplies in bfloat16 on tiles of its own (AMX), at a fraction of the time?

    `benchmarks/scoring.py` measures what scoring in it gives. It is not the default there: rounding so coarse makes
    much of the small differences between runs of one and of several processes, which are to choose the same samples.
    """
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # none in torch 2.11
    return device.type == "cpu" and bool(capabilities.get("amx_bf16", False))


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """The context in which forward passes run; parameters and losses stay float32."""
    if resolve_precision(device, precision) == "float32":
        return contextlib.nullcontext()
    context: AbstractContextManager[None] = torch.autocast(device.type, torch.bfloat16)
    return context


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a model to the device, convolutions as channels_last: faster on tensor cores and on CPUs.

    For a CPU this process keeps the memory that it frees, see `keep_freed_memory`.
    """
    if device.type == "cpu":
        keep_freed_memory()
    if any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
    return model.to(device)


def keep_freed_memory() -> None:
    """Have glibc's malloc keep large blocks for the next request, instead of giving them back to the system.

    The activations of a scoring pass are tens of megabytes each. Given back and asked for again, every page of them is
    faulted in and zeroed anew, which takes as long as the pass itself. Elsewhere than under glibc nothing is done.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_M_MMAP_MAX, 0)  # no block is a mapping of its own, to be unmapped when it is freed
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@contextlib.contextmanager
def repeatable_convolutions() -> Iterator[None]:
    """Within the block cuDNN does the same each time it is asked; its other settings, TF32 say, stay the caller's."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


@contextlib.contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Within the block one thread computes on the CPU: some layers' rounding depends on how many share the work."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seed_random(seed: int) -> None:
    """Seed torch's own generators (dropout, stochastic depth) on all devices."""
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """State of torch's generators, uint8 tensors, for a checkpoint."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """The inverse of `random_state`; a state saved on another kind of device restores what both have."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
