"""What running on a CPU asks of the process."""

import ctypes
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from torch import nn
from rhostream.pipeline.device import place

torch.set_num_threads(1)
if sys.argv[1] == "placed":
    place(nn.Linear(1, 1), torch.device("cpu"))
for _ in range(20):  # until malloc's blocks lie as they will
    torch.ones(10_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library's malloc has no settings")
def test_large_blocks_are_not_faulted_in_anew_once_a_model_is_on_the_cpu():
    def faults(how: str) -> int:
        command = [sys.executable, "-c", SCRIPT, how]
        return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)

    assert faults("placed") < faults("not placed") / 10
