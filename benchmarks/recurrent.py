"""SRU beside its peers at the sizes its speed is promised for; every ratio from one run, numbers checked first.

Run it from the root of the repository, on an otherwise idle machine; it writes one record:

    python benchmarks/recurrent.py --out results/bench_recurrent_cpu.json

The package `sru` takes part where it is installed (it compiles itself at its first import).
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

import torch

from karui.errors import UserError
from karui.report import write_record
from karui.tasks import recurrent_peers as peers

CPU = torch.device("cpu")
# name: (sizes, peers, rounds, promised ratios peer -> at least)
CASES: dict[str, tuple[dict[str, int], list[str], int, dict[str, float]]] = {
    "256/32/512": ({"seq_len": 256, "batch": 32, "hidden": 512}, ["torch-lstm", "torch-gru", "gemm"], 9,
                   {"torch-lstm": 2.6, "gemm": 1 / 1.25}),
    "128/32/128": ({"seq_len": 128, "batch": 32, "hidden": 128}, ["torch-lstm", "torch-gru", "gemm"], 151,
                   {"torch-lstm": 2.8, "gemm": 1 / 1.7}),
    "512/32/512": ({"seq_len": 512, "batch": 32, "hidden": 512}, ["sru"], 3, {"sru": 10.0}),
}  # fmt: skip
STEP = "step 1/512, 2 layers"
LENGTHS, LENGTH_LIMIT = (256, 512, 1024, 2048, 4096), 2.1


def shape(seq_len: int, batch: int, hidden: int, layers: int = 1) -> peers.Shape:
    """One direction, float32, as many inputs as units."""
    return peers.Shape(seq_len, batch, hidden, layers, 1, hidden, torch.float32, CPU)


def compare(sizes: peers.Shape, against: list[str], rounds: int) -> dict[str, Any]:
    """Times of all sides taken in turn, and the ratios of forward + backward."""
    rows = peers.measure(peers.sides("sru", sizes, against), CPU, repeats=rounds, seconds=60.0)
    both = {row["name"]: row["median_ms"] for row in rows if row["pass"] == peers.PASSES[1]}
    own = both.pop("karui-sru")
    return {"rows": rows, "ratios": {name: round(time / own, 3) for name, time in both.items()}}


def main() -> None:
    """Measure, write the record, print what was promised beside what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="file of the record to write")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    metrics: dict[str, Any] = {"threads": chosen.threads}
    with peers.threads(chosen.threads):
        metrics["difference_from_fp64"] = peers.check_numbers("sru", shape(64, 4, 128))
        for name, (sizes, against, rounds, promised) in CASES.items():
            try:
                found = compare(shape(**sizes), against, rounds)
            except UserError as error:
                print(f"{name}: left out, {error}")
                continue
            metrics[name] = {**found, "promised": promised}
            print(name, found["ratios"], "promised at least", promised)
        with peers.without_onednn(wanted=True):
            rows = peers.measure(
                peers.streaming_sides("sru", shape(1, 1, 512, 2), ["torch-lstm"]),
                CPU,
                repeats=301,
                seconds=20.0,
            )
        ratio = round(rows[1]["median_ms"] / rows[0]["median_ms"], 3)
        metrics[STEP] = {"rows": rows, "ratios": {"torch-lstm": ratio}, "promised": {"torch-lstm": 3.0}}
        print(STEP, metrics[STEP]["ratios"], "promised at least 3")
        sides = [peers.sides("sru", shape(length, 4, 256), [])[0] for length in LENGTHS]
        rows = peers.measure(sides, CPU, repeats=61, seconds=60.0)
        times = [row["median_ms"] for row in rows if row["pass"] == peers.PASSES[1]]
        factors = {
            f"{a} to {b}": round(y / x, 3)
            for (a, x), (b, y) in itertools.pairwise(zip(LENGTHS, times, strict=True))
        }
        metrics["factor a doubling of time steps, 4/256"] = {
            "factors": factors,
            "promised_at_most": LENGTH_LIMIT,
        }
        print(factors, "promised at most", LENGTH_LIMIT)
    write_record(
        chosen.out.parent, task="benchmark", data="synthetic", subset=False, recipe="bench-recurrent-cpu", seed=0,
        metrics=metrics, name=chosen.out.stem,
    )  # fmt: skip


if __name__ == "__main__":
    main()
