import platform
import subprocess
import sys

import pytest
import torch

from randfeat.utils.allocation import VARIABLES, reused_memory

STEPS = """
import resource, torch
from torch import nn
from randfeat.utils.allocation import reused_memory

torch.set_num_threads(1)
layers = nn.Sequential(*(nn.Conv2d(16, 16, 1) for _ in range(2)))

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        layers(torch.ones(3, 16, 512, 512)).sum().backward()  # tensors of 48 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmRSS"))

faults(1)
outside, before = faults(1), resident()
with reused_memory(torch.device("cpu")):
    faults(2)
    # the heap may grow once more where free memory lies in pieces
    print(outside, min(faults(1) for _ in range(3)), resident() - before, end=" ")
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_is_reused_inside_and_returned_after(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    ran = subprocess.run([sys.executable, "-c", STEPS], stdout=subprocess.PIPE, text=True, check=True)
    outside, inside, kept, returned = map(int, ran.stdout.split())
    assert outside > 500  # at least one for each 2 MiB
    assert inside < outside / 3
    assert kept > 48
    assert returned < 32


def test_other_devices_and_a_users_own_choice_are_left_alone(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda *_: pytest.fail("the C library was configured"))
    with reused_memory(torch.device("meta")):
        pass
    monkeypatch.setenv(VARIABLES[0], "131072")
    with reused_memory(torch.device("cpu")):
        pass
