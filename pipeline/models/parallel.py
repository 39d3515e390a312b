"""One model in several processes: replicated by DistributedDataParallel, or its parameters shared out by FSDP2."""

import warnings
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from rhostream.errors import ConfigError

_LEAST_OF_BLOCK: Final = 100_000  # parameters that are gathered in a message of their own


def in_parallel(model: nn.Module, device: torch.device, *, group: Any, shard: bool, sync_batchnorm: bool) -> nn.Module:
    """The model as the job's processes train it together; it is called in place of `model`, on its device.

    Buffers (BatchNorm's running statistics) are each process's own until `average_buffers`.

    Args:
        group: of the processes that train it, for tensors on the device.
        shard: share out parameters, gradients and the optimizer's state (FSDP2).
        sync_batchnorm: BatchNorm's statistics over the batch of all processes.

    Raises:
        ConfigError: SyncBatchNorm on a CPU, for which torch has none.
    """
    if sync_batchnorm:
        if device.type != "cuda":
            raise ConfigError("sync_batchnorm on a CPU, for which torch has no SyncBatchNorm: leave it out")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model, group)
    if not shard:
        devices = [device] if device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the name that torch 2.11 knows, too
            return DistributedDataParallel(model, device_ids=devices, process_group=group, broadcast_buffers=False)
    mesh = DeviceMesh.from_group(group, device.type)
    for block in _blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)  # in place
    return model


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The elements of sequences and lists of modules, outermost first, that are large enough."""
    found, inside = [], set[nn.Module]()
    for module in model.modules():
        if module in inside or not isinstance(module, (nn.Sequential, nn.ModuleList)):
            continue
        for block in module.children():
            if sum(parameter.numel() for parameter in block.parameters()) >= _LEAST_OF_BLOCK:
                found.append(block)
                inside.update(block.modules())
    return found


@torch.no_grad()
def average_buffers(model: nn.Module, group: Any) -> None:
    """Give every process of a group the mean of their buffers: running statistics, as of the batch of all."""
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    together = torch.cat([buffer.flatten() for buffer in buffers]) / dist.get_world_size(group)
    dist.all_reduce(together, group=group)
    for buffer, mean in zip(buffers, together.split([buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))


def whole_state(state: Any) -> Any:
    """A state of a model or an optimizer with its tensors whole. Every process calls it, with the same state."""
    if isinstance(state, DTensor):
        return state.full_tensor()
    if isinstance(state, dict):
        return {name: whole_state(value) for name, value in state.items()}
    return [whole_state(value) for value in state] if isinstance(state, list) else state


def load_model(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load tensors, whole or shared out as its own, into a model whose parameters may be shared out."""
    own = model.state_dict()
    model.load_state_dict({name: _like(own.get(name), value) for name, value in state.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The same of the state of an optimizer."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shared_out = {
        number: {name: _like(parameters[number], value) for name, value in of_parameter.items()}
        for number, of_parameter in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": shared_out})


def _like(own: Any, value: Any) -> Any:
    """This process's part of a tensor, where its own is one."""
    if isinstance(value, DTensor):
        return value
    if isinstance(own, DTensor) and isinstance(value, Tensor) and value.shape == own.shape:
        return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)
    return value
