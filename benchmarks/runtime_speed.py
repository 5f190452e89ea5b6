"""Microseconds a document on one thread: a .karui file, the dense PyTorch model of its run, and fastText, in one run.

It calls `karui bench runtime`, which takes raw texts and lets the sides take turns, and writes one record:

    python benchmarks/runtime_speed.py imdb.karui documents.txt --run runs/imdb --fasttext imdb.ftz \\
        --out results/bench_runtime_imdb.json

documents.txt has one raw text a line. fastText was trained on karui's words; it is timed with and without them, so
that the cost of splitting raw text is in the comparison.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from karui.report import write_record


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description="Record the speed of the runtime beside its peers.")
    parser.add_argument("model", type=Path)
    parser.add_argument("documents", type=Path)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--fasttext", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="record to write")
    arguments = parser.parse_args()
    command = [
        sys.executable,
        "-m",
        "karui",
        "bench",
        "runtime",
        arguments.model,
        arguments.documents,
        "--json",
    ]
    command += ["--run", arguments.run, "--fasttext", arguments.fasttext]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    report = json.loads(done.stdout)
    metrics = {
        "how": "raw text to label, one thread, sides take turns, median of passes; ratio = side / karui, one by one",
        "documents": report["documents"],
        "mean_characters": report["mean_characters"],
        "artifact_bytes": report["artifact_bytes"],
        "fasttext_bytes": arguments.fasttext.stat().st_size,
        "same_label_as_masked_model": report["same_label"],
        "us_per_document": report["sides"][0]["us_per_document"],
        "sides": report["sides"],
    }
    results = json.loads((arguments.run / "results.json").read_text(encoding="utf-8"))
    write_record(
        arguments.out.parent,
        task="bench_runtime",
        data=results["data"],
        subset=results["subset"],
        recipe=results["recipe"],
        seed=results["seed"],
        metrics=metrics,
        name=arguments.out.stem,
    )
    print(json.dumps(metrics, indent=1))


if __name__ == "__main__":
    main()
