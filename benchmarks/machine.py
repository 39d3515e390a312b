"""What a benchmark ran on, for its results."""

import os
import platform
from pathlib import Path
from typing import Any

import torch


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def machine(device: torch.device | str = "cpu") -> dict[str, Any]:
    """As JSON values; the load is that of the last minute."""
    device = torch.device(device)
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
