"""Each output layer in a process of its own: what training one adds to the process, at its highest point.

The system's own count of resident memory is read, because layers use memory that torch's allocators do not see.
"""

import json
import re
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from karui.errors import UserError

_PEAK, _NOW = "VmHWM", "VmRSS"
_RESET_PEAK = "5"  # what Linux takes for "forget the highest point" (proc(5), clear_refs)


class PeakMemory:
    """Megabytes (10^6 bytes) of resident memory above those at the first call."""

    def __init__(self) -> None:
        self._before: float | None = None

    def __call__(self) -> float:
        """Return the highest point since the first call above the level then; 0 at the first call."""
        if self._before is None:
            _forget_peak()
            self._before = _status(_NOW) or _largest()
            return 0.0
        return max(0.0, (_status(_PEAK) or _largest()) - self._before)


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return  # the peak then holds what came before: never too small a figure


def _status(key: str) -> float | None:
    """Return a figure of Linux's /proc/self/status in megabytes; None elsewhere."""
    try:
        found = re.search(
            rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE
        )
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024 / 1e6


def _largest() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def megabytes_free() -> float | None:
    """Return the memory that programs can still take, by Linux's own estimate; None elsewhere."""
    try:
        found = re.search(
            r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE
        )
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024 / 1e6


def measure_apart(method: str, shape: Any, *, repeats: int, seconds: float) -> dict[str, Any]:
    """Return `output_peers.measure` of a new process, with `peak_mb`.

    Raises:
        UserError: the process ended without an answer, as it does where memory runs out.
    """
    asked = {"method": method, "shape": asdict(shape), "repeats": repeats, "seconds": seconds}
    done = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import answer; answer()"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it was ended from outside, as where memory runs out"])[
            -1
        ]
        raise UserError(f"{method} at {shape.classes} classes failed: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def answer() -> None:
    """Read what to measure from standard input, measure it, write the row to standard output."""
    from karui.tasks import output_peers
    from karui.tasks.recurrent_peers import threads

    asked = json.loads(sys.stdin.read())
    shape = output_peers.Shape(**asked["shape"])
    tiny = output_peers.Shape(min(shape.classes, 500), shape.hidden, 16, min(shape.num_samples, 16))
    with threads(shape.threads or None):
        output_peers.measure(
            asked["method"], tiny, repeats=2, seconds=0.0
        )  # libraries, kernels, pools of threads
        row = output_peers.measure(
            asked["method"], shape, repeats=asked["repeats"], seconds=asked["seconds"], peak=PeakMemory()
        )
    sys.stdout.write(json.dumps(row) + "\n")
