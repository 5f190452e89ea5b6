"""Factorised output layers: adaptive softmax beside torch's on equal cut-offs, the tree beside the full, queries.

Run it from the root of the repository, on an otherwise idle machine; it writes one record:

    python benchmarks/adaptive.py --out results/bench_adaptive.json

Both sides of a ratio are taken in turn in one process, numbers first. The full softmax at 500,000 classes needs 9 GB.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from karui.output.adaptive import AdaptiveSoftmax
from karui.output.cutoffs import choose_cutoffs, cost_of_cutoffs
from karui.report import write_record
from karui.tasks import output_peers as peers

POSITIONS, HIDDEN, TOP, SPREAD = 1024, 256, 10, 5.0
CUTOFFS = {10_000: [2000], 100_000: [2000, 20_000], 500_000: [4000, 40_000, 200_000]}
TREE_CLASSES, TREE_PROMISED = 500_000, 200.0
QUERY_CLASSES, QUERY_METHODS = 1_000_000, ("huffman", "adaptive", "class", "full")


def in_turn(sides: dict[str, Callable[[int], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Times in ms of calls side(round): all sides in every round, one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            begin = time.perf_counter()
            side(turn)
            times[name].append(1e3 * (time.perf_counter() - begin))
    return {
        name: {"median_ms": round(statistics.median(all_[1:]), 3), "fastest_ms": round(min(all_[1:]), 3)}
        for name, all_ in times.items()
    }


def ratios(rows: dict[str, dict[str, float]], own: str, other: str) -> dict[str, float]:
    """How many times as long as `own` the other side takes."""
    return {word: round(rows[other][word] / rows[own][word], 3) for word in ("median_ms", "fastest_ms")}


def batches(classes: int, count: int) -> tuple[Tensor, Tensor]:
    """Hidden vectors (count, N, H) and ranks (count, N) drawn by Zipf's law."""
    generator = torch.Generator().manual_seed(0)
    cdf = (1 / torch.arange(1, classes + 1, dtype=torch.float64)).cumsum(0)
    draws = torch.rand(count, POSITIONS, generator=generator, dtype=torch.float64) * cdf[-1]
    return torch.randn(count, POSITIONS, HIDDEN, generator=generator), torch.searchsorted(cdf, draws)


def adaptive(classes: int, rounds: int) -> dict[str, Any]:
    """Forward + backward beside torch's module with the same weights; then with the cut-offs chosen by the counts."""
    torch.manual_seed(0)
    cutoffs = CUTOFFS[classes]
    theirs = nn.AdaptiveLogSoftmaxWithLoss(HIDDEN, classes, cutoffs, div_value=4.0)
    own = AdaptiveSoftmax.from_torch(theirs)
    counts = (1e9 / torch.arange(1, classes + 1)).long()
    chosen = AdaptiveSoftmax(HIDDEN, counts)
    hidden, target = batches(classes, rounds + 1)
    hidden.requires_grad_()
    gradients = []
    for loss in (theirs(hidden[0], target[0]).loss, own(hidden[0], target[0])):
        (grad,) = torch.autograd.grad(loss, [hidden])
        gradients.append((loss.detach(), grad[0]))
    difference = max(float((a - b).abs().max()) for a, b in zip(*gradients, strict=True))

    def step(layer: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[int], None]:
        def run(turn: int) -> None:
            loss(hidden[turn].detach().requires_grad_(), target[turn]).backward()
            layer.zero_grad(set_to_none=True)

        return run

    rows = in_turn(
        {
            "torch": step(theirs, lambda h, t: theirs(h, t).loss),
            "karui": step(own, own),
            "karui, cut-offs chosen": step(chosen, chosen),
        },
        rounds,
    )
    return {
        "cutoffs": cutoffs,
        "chosen_cutoffs": chosen.cutoffs,
        "columns": {
            "given": round(cost_of_cutoffs(counts.numpy(), cutoffs), 1),
            "chosen": round(cost_of_cutoffs(counts.numpy(), choose_cutoffs(counts)), 1),
            "plain softmax": classes,
        },
        "largest_difference_from_torch": difference,
        "rows": rows,
        "ratio": ratios(rows, "karui", "torch"),
        "promised": 1.0,
    }


def tree(rounds: int) -> dict[str, Any]:
    """Whole steps, update included: the tree with row-wise Adagrad, the full softmax with torch's fused Adam."""
    shape = peers.Shape(TREE_CLASSES, HIDDEN, POSITIONS)
    counts = peers.counts_of(TREE_CLASSES)[0]
    difference = peers.check_numbers(["huffman", "full"], shape)
    begin = time.perf_counter()
    steppers = {"huffman": peers.Stepper(peers.build("huffman", shape, counts), shape, counts)}
    build_ms = 1e3 * (time.perf_counter() - begin)
    steppers["full"] = peers.Stepper(peers.build("full", shape, counts), shape, counts)
    times: dict[str, list[float]] = {name: [] for name in steppers}
    for turn in range(rounds + 1):
        for name, count in (
            ("full", 1),
            ("huffman", 20),
        ):  # steps of the tree are short: many after each other one
            steps = [1e3 * steppers[name].step()[0] for _ in range(count)]
            times[name] += steps if turn else []  # the first round warms up
    rows = {
        name: {"median_ms": round(statistics.median(all_), 3), "fastest_ms": round(min(all_), 3)}
        for name, all_ in times.items()
    }
    found = {"classes": TREE_CLASSES, "build_ms": round(build_ms, 1), "check_difference": difference}
    return found | {"rows": rows, "ratio": ratios(rows, "huffman", "full"), "promised": TREE_PROMISED}


def answer(layer: Any, hidden: Tensor, turn: int) -> None:
    """One exact query."""
    layer.topk(hidden[turn], TOP)


@torch.no_grad()
def queries(classes: int, rounds: int) -> dict[str, Any]:
    """Exact top-10 of one position and of 32, at the start of training and with weights several times as large."""
    shape = peers.Shape(classes, HIDDEN, POSITIONS)
    counts = peers.counts_of(classes)[0]
    hidden = torch.randn(rounds + 1, 32, HIDDEN, generator=torch.Generator().manual_seed(0))
    found: dict[str, Any] = {"classes": classes, "top": TOP, "spread": SPREAD}
    for method in QUERY_METHODS:
        layer: Any = peers.build(method, shape, counts).layer
        rows: dict[str, Any] = {}
        for name, factor in (("start", 1.0), ("spread", SPREAD)):
            for parameter in layer.parameters():
                if parameter.dim() == 2:
                    parameter.mul_(factor)
            for count in (1, 32):
                side = {"query": partial(answer, layer, hidden[:, :count])}
                rows[f"{name}, {count}"] = in_turn(side, rounds if count == 1 else max(1, rounds // 5))[
                    "query"
                ]
        found[method] = rows
        del layer
        gc.collect()
    return found


def main() -> None:
    """Measure, write the record, print what was promised beside what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="file of the record to write")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--parts", default="adaptive,tree,queries", help="the others keep what the file has")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    kept = json.loads(chosen.out.read_text(encoding="utf-8"))["metrics"] if chosen.out.exists() else {}
    metrics: dict[str, Any] = kept | {"threads": chosen.threads, "positions": POSITIONS, "hidden": HIDDEN}
    parts = chosen.parts.split(",")
    if "adaptive" in parts:
        for classes in CUTOFFS:
            metrics[f"adaptive {classes}"] = result = adaptive(classes, chosen.rounds)
            print("adaptive", classes, result["rows"], result["ratio"], "promised at least 1", flush=True)
    if "tree" in parts:
        metrics["tree"] = result = tree(max(1, chosen.rounds // 4))
        print("tree", result["rows"], result["ratio"], "promised at least", TREE_PROMISED, flush=True)
    if "queries" in parts:
        metrics["queries"] = queries(QUERY_CLASSES, chosen.rounds)
        print("queries", metrics["queries"], flush=True)
    write_record(
        chosen.out.parent, task="benchmark", data="synthetic", subset=False, recipe="bench-adaptive", seed=0,
        metrics=metrics, name=chosen.out.stem,
    )  # fmt: skip


if __name__ == "__main__":
    main()
