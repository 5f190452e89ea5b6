"""Memory of a process that trains: freed blocks are not given back, so that the next step finds them cleared."""

import subprocess
import sys
from pathlib import Path

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


HUGE = """
from pathlib import Path
from karui.memory import keep_for_training
assert keep_for_training()
import torch
kept = [torch.ones(250_000) for _ in range(40)]  # of 1 MB: torch itself asks from 2 MB on
told = Path("/proc/self/smaps_rollup").read_text().splitlines()
print(next(int(line.split()[1]) for line in told if line.startswith("AnonHugePages")))
"""


@pytest.mark.parametrize(("wish", "is_huge"), [("1", True), ("0", False)])
def test_the_heap_is_in_huge_pages_unless_the_environment_wants_none(wish, is_huge):
    mode = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if faults("kept") is None or not mode.exists() or "[madvise]" not in mode.read_text():
        pytest.skip("this system gives no huge pages to those that ask")
    found = subprocess.run(
        [sys.executable, "-c", HUGE],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin", "THP_MEM_ALLOC_ENABLE": wish},
    )
    assert (int(found.stdout) >= 20_000) == is_huge
