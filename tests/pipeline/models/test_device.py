"""What running on a CPU asks of the process."""

import ctypes
import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from torch import nn
from rhostream.pipeline.models.device import place

def faults():
    for _ in range(20):  # until malloc's blocks lie as they will
        torch.ones(10_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
before = faults()
place(nn.Linear(1, 1), torch.device("cpu"))
print(before, faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs the malloc of glibc"
)
def test_large_blocks_fault_in_once_for_a_cpu_model():
    output = subprocess.run([sys.executable, "-c", SCRIPT], check=True, stdout=subprocess.PIPE, text=True).stdout
    before, after = map(int, output.split())
    assert after < before / 10
