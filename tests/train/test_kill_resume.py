"""A run killed at any moment and resumed ends with the same bits on a CPU as one left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KILLS = 3
REAL_KILLS = 20


def lines_without_seconds(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    return lines


def test_killed_and_resumed_run_ends_with_the_same_bits(tmp_path):
    command = [sys.executable, "-m", "tests.support.kill_server", str(tmp_path), str(KILLS)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) == KILLS, "a training ended before it was killed"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for name in ("final.safetensors", "best.safetensors"):
        assert (killed / "checkpoints" / name).read_bytes() == (whole / "checkpoints" / name).read_bytes()
    lines = lines_without_seconds(whole / "metrics.jsonl")
    assert lines_without_seconds(killed / "metrics.jsonl") == lines
    assert sum(line["split"] == "train" for line in lines) == 6 * 10 + 6 * 9
    assert sum(line["split"] == "valid" for line in lines) == 12


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_real_training_killed_at_random_moments(tmp_path):
    command = [
        sys.executable,
        "benchmarks/kill_resume.py",
        f"--kills={REAL_KILLS}",
        f"--out={tmp_path / 'a.json'}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "a.json").read_text())["metrics"]
    assert metrics["kills"] == REAL_KILLS
    assert metrics["resumed_at_new_steps"] > 0
