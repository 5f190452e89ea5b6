"""A disk that is really full: a small tmpfs in a mount namespace of its own, so that nothing else sees it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRIVATE = ["unshare", "--map-root-user", "--mount"]
TRAIN = """
import sys
from pathlib import Path
from karui.errors import UserError
from karui.train import TrainSettings, fit
from tests.support.tiny_task import TinyTask

whole, small = map(Path, sys.argv[1:])
settings = TrainSettings(max_epochs=3, lr=0.01, weight_averaging=0.9, checkpoint_every_s=0.0, threads=1)

def run(folder):
    fit(TinyTask(), settings, folder, resume=True, quiet=True, tensorboard=False)

run(whole)
ballast = small / "ballast"
ballast.write_bytes(bytes(320_000))
try:
    run(small / "run")
except UserError as error:
    print(error)
else:
    raise SystemExit("the disk was large enough")
print(sorted(path.name for path in (small / "run" / "checkpoints").iterdir()))
ballast.unlink()
run(small / "run")
name = "checkpoints/final.safetensors"
print((small / "run" / name).read_bytes() == (whole / name).read_bytes())
"""


def can_mount() -> bool:
    if shutil.which("unshare") is None or not Path("/proc/mounts").exists():
        return False
    trial = [*PRIVATE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


def test_full_disk_keeps_the_last_checkpoint_and_the_run_continues(tmp_path):
    if not can_mount():
        pytest.skip("needs a mount namespace; test_loop.py simulates the full disk")
    small, whole = tmp_path / "small", tmp_path / "whole"
    small.mkdir()
    shell = 'mount -t tmpfs -o size=400k tmpfs "$0" && exec "$@"'
    command = [*PRIVATE, "sh", "-c", shell, str(small), sys.executable, "-c", TRAIN, str(whole), str(small)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    refusal, files, is_equal = done.stdout.splitlines()
    assert "last.safetensors: the disk is full; free some space" in refusal
    assert refusal.endswith("the one before it is intact, continue with --resume")
    assert files == "['last.safetensors']"
    assert is_equal == "True"
