"""Runs a script of torchtitan, which knows GPUs alone, on CPUs and gloo: torchtitan_on_cpus.py SCRIPT ARGUMENTS…

All that is another one is the device that torchtitan finds.
"""

import runpy
import sys
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torchtitan.tools import utils


def _module() -> SimpleNamespace:
    """What torchtitan asks of `torch.cuda`."""
    return SimpleNamespace(
        **{name: getattr(torch.cpu, name) for name in ("current_device", "device_count", "set_device", "synchronize")},
        empty_cache=lambda: None,
        get_device_name=lambda device: "CPU",
        get_device_properties=lambda device: SimpleNamespace(total_memory=1 << 30),
        get_rng_state=torch.get_rng_state,
        memory_stats=lambda device: {},
        reset_peak_memory_stats=lambda: None,
    )


_barrier = dist.barrier


def _barrier_of_gloo(*arguments: Any, device_ids: Any = None, **options: Any) -> Any:
    return _barrier(*arguments, **options)


utils.device_type, utils.device_module = "cpu", _module()
dist.barrier = _barrier_of_gloo
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
