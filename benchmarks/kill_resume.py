"""Kill `karui train classify` with SIGKILL at random moments, resume it each time, and compare with a run left alone.

Run it from the root of the repository; it writes one record:

    python benchmarks/kill_resume.py --kills 20 --out results/kill_resume.json

The moments are drawn over the whole life of the process: start-up, reading the data, training, and writing
checkpoints, of which there are five a second here. The exit code is 0 only where every compared thing is equal.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from safetensors import safe_open

from karui.report import write_record

OPTIONS = [
    "train",
    "classify",
    "--data=stdlib-docs",
    "--recipe=classification-sparse",
    "--epochs=6",
    "--quiet",
]
OPTIONS += ["--set=train.checkpoint_every_s=0.2", "--set=train.log_every=10"]
OPTIONS += ["--set=train.grad_clip_norm=5", "--set=train.weight_averaging=0.9"]
MAIN = "import sys; from karui.cli.main import main; sys.exit(main(sys.argv[1:]))"


def start(folder: Path) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *OPTIONS, "--resume", "--out", str(folder)], env=environment
    )


def steps_done(folder: Path) -> int:
    """Return the step of the last checkpoint; 0 where there is none yet."""
    path = folder / "checkpoints" / "last.safetensors"
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["karui"])["state"]["global_step"]


def wait_for_training(process: subprocess.Popen, folder: Path, log_bytes: int) -> None:
    """Return when the process has begun to write its log and the log is so long, or when it has ended."""
    began_ns = time.time_ns()
    log = folder / "metrics.jsonl"
    while process.poll() is None:
        if log.exists() and log.stat().st_mtime_ns > began_ns and log.stat().st_size >= log_bytes:
            return
        time.sleep(0.002)


def kill_again_and_again(folder: Path, kills: int, start_up_s: float, log_bytes: int) -> dict[str, int]:
    """Start, kill at a random moment, repeat; then let the run end.

    Every fourth kill falls anywhere into the start-up (imports, data, reading the checkpoint), the others after
    a random share of the training: shares instead of seconds, because a busy machine is not always as fast.
    """
    moments = random.Random(1)
    found = {"kills": 0, "kills_in_training": 0, "kills_while_writing": 0, "resumed_at_new_steps": 0}
    steps = 0
    for share in sorted(moments.uniform(0.0, 0.95) for _ in range(kills)):
        process = start(folder)
        is_start_up = found["kills"] % 4 == 3
        if is_start_up:
            time.sleep(moments.uniform(0.0, start_up_s))
        else:
            wait_for_training(process, folder, round(share * log_bytes))
            time.sleep(moments.uniform(0.0, 0.2))
        if process.poll() is not None:
            break  # the run has ended: too few kills are reported as they are
        process.send_signal(signal.SIGKILL)
        process.wait()
        before, steps = steps, steps_done(folder)
        found["kills"] += 1
        found["kills_in_training"] += not is_start_up
        found["kills_while_writing"] += any(folder.rglob(".tmp-*"))
        found["resumed_at_new_steps"] += steps > before
        print(f"kill {found['kills']}: the last checkpoint is of step {steps}", flush=True)
    if start(folder).wait():
        sys.exit("the resumed run failed")
    return found


def figures(folder: Path) -> dict[str, Any]:
    """Return all that has to be equal, without times."""
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    results = json.loads((folder / "results.json").read_text())["metrics"]
    checkpoints = folder / "checkpoints"
    return {
        "final_weights": (checkpoints / "final.safetensors").read_bytes(),
        "best_weights": (checkpoints / "best.safetensors").read_bytes(),
        "last_checkpoint_tensors": tensors_of(checkpoints / "last.safetensors"),
        "metrics_lines": [{**line, "seconds": 0} for line in log],
        "results": {**results, "train_minutes": 0},
        "vocabulary": (folder / "vocabulary.json").read_bytes(),
    }


def tensors_of(path: Path) -> bytes:
    """Return the bytes of model, optimizer, average and random state, without the counters of time."""
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill and resume a training, and compare.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path, default=None, help="record to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        began = time.monotonic()
        if start(whole).wait():
            sys.exit("the undisturbed run failed")
        took_s = time.monotonic() - began
        training_s = 60 * json.loads((whole / "results.json").read_text())["metrics"]["train_minutes"]
        log_bytes = (whole / "metrics.jsonl").stat().st_size
        found = kill_again_and_again(killed, arguments.kills, took_s - training_s, log_bytes)
        one, other = figures(whole), figures(killed)
        results = json.loads((whole / "results.json").read_text())
    equal = {f"{name}_equal": one[name] == other[name] for name in one}
    metrics = {
        **found,
        **equal,
        "metrics_lines": len(one["metrics_lines"]),
        "undisturbed_s": round(took_s, 1),
    }
    print(json.dumps(metrics, indent=1))
    if arguments.out is not None:
        write_record(
            arguments.out.parent,
            task="kill_resume",
            data=results["data"],
            subset=results["subset"],
            recipe=results["recipe"],
            seed=results["seed"],
            metrics=metrics,
            name=arguments.out.stem,
        )
    sys.exit(0 if all(equal.values()) and found["kills"] == arguments.kills else 1)


if __name__ == "__main__":
    main()
