"""Time of a training step with sparse variational dropout over that of the dense step, both in one run.

Run it from the root of the repository; it writes one record:

    python benchmarks/sparse_step.py --out results/sparse_step.json

CPU seconds of one thread are compared, dense and sparse steps in turn, so that a busy machine slows both alike.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from karui.report import write_record
from karui.sparse import SparseVariationalDropout, penalty, sparsify
from karui.tasks.text_classifier import TextClassifier

WORDS, BATCH, LENGTH, CLASSES = 20_000, 64, 235, 2  # IMDb's
SIZES = {"sru 16/16": ("sru", 16, 16), "lstm 16/16": ("lstm", 16, 16), "lstm 300/128": ("lstm", 300, 128)}
LIMIT = 1.6


def make_step(recurrent: str, embedding_dim: int, hidden_size: int, *, sparse: bool) -> Callable[[], None]:
    """Return a function that does one whole training step on random Zipf-like documents."""
    torch.manual_seed(0)
    model = TextClassifier(
        WORDS,
        CLASSES,
        recurrent=recurrent,
        embedding_dim=embedding_dim,
        hidden_size=hidden_size,
        embedding_dropout=0.2,
        word_dropout=0.1,
    )
    if sparse:
        sparsify(model, SparseVariationalDropout())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    frequencies = 1.0 / torch.arange(1, WORDS + 1)
    ids = torch.multinomial(frequencies, BATCH * LENGTH, replacement=True).view(BATCH, LENGTH) + 1
    lengths, labels = torch.full((BATCH,), LENGTH), torch.randint(0, 2, (BATCH,)).float()

    def step() -> None:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(ids, lengths)[:, 0], labels)
        if sparse:
            loss = loss + penalty(model) / 25_000
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def measure(recurrent: str, embedding_dim: int, hidden_size: int, *, repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of the two steps, taken in turn, and their ratio."""
    steps = {
        kind: make_step(recurrent, embedding_dim, hidden_size, sparse=kind == "sparse")
        for kind in ("dense", "sparse")
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for repeat in range(repeats + 2):
        for kind, step in steps.items():
            start = time.process_time()
            step()
            if repeat >= 2:
                seconds[kind].append(time.process_time() - start)
    dense, sparse = (1e3 * statistics.median(seconds[kind]) for kind in ("dense", "sparse"))
    return {
        "dense_step_ms": round(dense, 3),
        "sparse_step_ms": round(sparse, 3),
        "ratio": round(sparse / dense, 3),
    }


def main() -> None:
    """Measure all sizes, print and record them; exit code 1 where a ratio is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/sparse_step.json"))
    parser.add_argument("--repeats", type=int, default=11)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    metrics = {name: measure(*sizes, repeats=arguments.repeats) for name, sizes in SIZES.items()}
    for name, figures in metrics.items():
        print(f"{name}: {figures}")
    write_record(
        arguments.out.parent,
        task="training-step",
        data="random Zipf-like documents",
        subset=False,
        recipe="sparse-step",
        seed=0,
        metrics={"limit": LIMIT, **metrics},
        name=arguments.out.stem,
    )
    raise SystemExit(any(figures["ratio"] > LIMIT for figures in metrics.values()))


if __name__ == "__main__":
    main()
