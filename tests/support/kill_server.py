"""Starts a training again and again and kills it with SIGKILL: `python -m tests.support.kill_server FOLDER KILLS`.

A process that has imported torch but not used it yet forks the trainings, so that the import is paid once. The
undisturbed run goes to FOLDER/whole, the killed and resumed one to FOLDER/killed; the last line of stdout is the
number of trainings that were really killed before their end.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from karui.train import TrainSettings, fit
from tests.support.tiny_task import TinyTask

SETTINGS = TrainSettings(
    max_epochs=12,
    lr=0.01,
    weight_averaging=0.9,
    grad_clip_norm=0.5,
    penalty_weight=0.01,
    penalty_ramp=0.3,
    log_every=1,
    checkpoint_every_s=0.0,  # after every step: most kills meet a checkpoint half written
)


def start(folder: Path) -> int:
    """Fork a training that resumes in `folder` and return its process id."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            fit(TinyTask(), SETTINGS, folder, resume=True, quiet=True, tensorboard=False)
            status = 0
        finally:
            os._exit(status)
    return process


def kill_at(process: int, path: Path, size: int, delay_s: float) -> bool:
    """Kill `process` a moment after `path` has grown to `size` bytes; False where it had ended before."""
    while not path.exists() or path.stat().st_size < size:
        if os.waitpid(process, os.WNOHANG)[0]:
            return False
        time.sleep(0.0005)
    time.sleep(delay_s)
    os.kill(process, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def main() -> None:
    torch.set_num_threads(1)
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    if os.waitpid(start(folder / "whole"), 0)[1]:
        sys.exit("the undisturbed run failed")
    size = (folder / "whole" / "metrics.jsonl").stat().st_size
    moments = random.Random(kills)
    killed = 0
    for share in sorted(moments.uniform(0.0, 0.9) for _ in range(kills)):
        process = start(folder / "killed")
        metrics = folder / "killed" / "metrics.jsonl"
        killed += kill_at(process, metrics, round(share * size), moments.uniform(0.0, 0.01))
    if os.waitpid(start(folder / "killed"), 0)[1]:
        sys.exit("the resumed run failed")
    sys.stdout.write(f"{killed}\n")


if __name__ == "__main__":
    main()
