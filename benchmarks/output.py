"""Output layers at the sizes their speed and memory are promised for; each layer in a process of its own.

Run it from the root of the repository, on an otherwise idle machine with 12 GB of free memory; it takes about ten
minutes and writes one record. KARUI_DATA gives the real counts of 793,471 words; without them they follow Zipf's law.

    python benchmarks/output.py --out results/bench_output_cpu.json
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from karui.errors import UserError
from karui.report import write_record
from karui.tasks import output_peers as peers
from karui.tasks.output_process import measure_apart, megabytes_free

FEW, MANY, REAL, MILLION = 10_000, 500_000, 793_471, 1_000_000
TREE = "huffman"
ROW_WISE = (*peers.SAMPLED, TREE)  # a step touches the rows it draws, and no others
METHODS = {
    FEW: peers.METHODS,
    MANY: peers.METHODS,
    REAL: (*ROW_WISE, "class", "adaptive"),
    MILLION: (*ROW_WISE, "class", "adaptive"),
}
SAMPLED_FASTER, TREE_FASTER, LONGER_AT_MOST, TABLES_AT_MOST = 150.0, 200.0, 1.3, 1.3


def rows_of(
    shape: peers.Shape, methods: tuple[str, ...], repeats: int, seconds: float
) -> list[dict[str, Any]]:
    """Measure the methods at one size; what does not fit or fails is said and left out."""
    rows = []
    for method in methods:
        needed, free = peers.megabytes_needed(method, shape), megabytes_free()
        if free is not None and needed > free:
            print(f"{method} at {shape.classes:,}: left out, needs {needed:.0f} MB, {free:.0f} are free")
            continue
        try:
            row = measure_apart(method, shape, repeats=repeats, seconds=seconds)
        except UserError as error:
            print(f"left out: {error}")
            continue
        rows.append(row)
        print(
            f"{method:<18}{shape.classes:>10,}  step {row['step_ms']:>10.2f} ms  update {row['optimizer_ms']:>8.2f} ms"
            f"  peak {row['peak_mb']:>7.0f} MB  query {row['query_ms']:>8.3f} ms",
            flush=True,
        )
    return rows


def promises(rows: list[dict[str, Any]], hidden: int) -> dict[str, dict[str, Any]]:
    """Method -> what was promised of it and what came out."""
    found = {(row["method"], row["classes"]): row for row in rows}
    made: dict[str, dict[str, Any]] = {}
    for method in ROW_WISE:
        own: dict[str, Any] = {}
        full, step = found.get((peers.REFERENCE, MANY)), found.get((method, MANY))
        if full and step:
            own["full / step at 500,000"] = round(full["step_ms"] / step["step_ms"], 1)
            own["promised at least"] = TREE_FASTER if method == TREE else SAMPLED_FASTER
        few, real = found.get((method, FEW)), found.get((method, REAL))
        if few and real:
            own["step at 793,471 / at 10,000"] = round(real["step_ms"] / few["step_ms"], 3)
        if million := found.get((method, MILLION)):
            own["peak / table at 1,000,000"] = round(million["peak_mb"] / (4e-6 * MILLION * hidden), 3)
        made[method] = own
    return made


def main() -> None:
    """Measure, write the record, print what was promised beside what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="file of the record to write")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=20.0, help="a slower layer stops after this long")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    first = peers.Shape(FEW, threads=chosen.threads)
    difference = peers.check_numbers(list(peers.METHODS), first)
    rows = []
    for classes, methods in METHODS.items():
        rows += rows_of(peers.Shape(classes, threads=chosen.threads), methods, chosen.repeats, chosen.seconds)
    kept = promises(rows, first.hidden)
    for method, own in kept.items():
        print(method, own)
    print(
        f"promised: a step at 793,471 at most {LONGER_AT_MOST} times as long, a peak of at most {TABLES_AT_MOST} tables"
    )
    metrics = {
        "threads": chosen.threads, "hidden": first.hidden, "positions": first.positions,
        "num_samples": first.num_samples, "difference_from_plain": difference, "rows": rows, "promises": kept,
    }  # fmt: skip
    write_record(
        chosen.out.parent, task="benchmark", data="lm1b_unigram", subset=False, recipe="bench-output-cpu", seed=0,
        metrics=metrics, name=chosen.out.stem,
    )  # fmt: skip


if __name__ == "__main__":
    main()
