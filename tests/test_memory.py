"""Memory of a process that trains: freed blocks are not given back, so that the next step finds them cleared."""

import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys
from karui.memory import keep_for_training
if sys.argv[1] == "kept" and not keep_for_training():
    sys.exit(3)
import torch
for _ in range(24):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16_000_000)
    last = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(last)
"""


def faults(kind: str, **environment: str) -> int | None:
    """Page faults of a tensor of 64 MB after many others; None where the system cannot keep memory."""
    found = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS, kind],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin", "THP_MEM_ALLOC_ENABLE": "0", **environment},
    )
    if found.returncode == 3:
        return None
    assert found.returncode == 0, found.stderr
    return int(found.stdout)


def test_freed_memory_is_kept_for_the_next_tensor():
    kept = faults("kept")
    if kept is None:
        pytest.skip("this system's allocator takes no such wish")
    assert kept < 100
    assert faults("plain") > 10_000  # each page of each tensor, 4 KB at a time


def test_an_environment_with_wishes_of_its_own_is_left_alone():
    assert faults("kept", GLIBC_TUNABLES="glibc.malloc.trim_threshold=1000000") is None
