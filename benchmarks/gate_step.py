"""Time of a training step with each kind of gate over that of the dense step, both in one run.

Run it from the root of the repository; it writes one record:

    python benchmarks/gate_step.py --out results/gate_step.json

Seconds of one thread, dense and gated steps in turn; the smallest of many, so that a busy machine slows neither.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui.report import write_record
from karui.sparse import (
    HardConcrete,
    MagnitudePruning,
    SparseVariationalDropout,
    penalty,
    project,
    prunable_parameters,
    sparsify,
)
from karui.tasks.text_classifier import TextClassifier

LIMIT = 1.4
"""Of gates: factors on weights that are there anyway."""
VARIATIONAL_LIMIT = 3.0
"""Of noise on every weight. By local reparametrisation each product has a second one, of squares, with a backward pass
of its own, and each weight a variance with its KL and its share of the optimizer: 2 is what the products alone cost,
where they are all there is, as in LeNet-300-100. A classifier's steps are made of other things: they stay below."""
WORDS, LENGTH = 20_000, 235  # IMDb's
METHODS: dict[str, dict[str, Any]] = {
    "lenet-300-100": {
        "l0 input": HardConcrete(groups=("input",)),
        "l0 weight": HardConcrete(groups=("weight",)),
        "l0 16x1": HardConcrete(groups=("16x1",)),
        "vd weight": SparseVariationalDropout(groups=("weight",)),
        "magnitude weight": MagnitudePruning(groups=("weight",)),
        "magnitude input": MagnitudePruning(groups=("input",)),
    },
    "classifier": {
        "l0 word, input, gate": HardConcrete(groups=("word", "input", "gate")),
        "l0 weight": HardConcrete(groups=("weight",)),
        "vd word": SparseVariationalDropout(groups=("word",)),
        "vd word, input, gate": SparseVariationalDropout(groups=("weight", "word", "input", "gate")),
        "magnitude weight": MagnitudePruning(groups=("weight",)),
    },
}


def lenet() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    """LeNet-300-100 and the loss of a batch of 100 images."""
    x, y = torch.rand(100, 784), torch.randint(0, 10, (100,))
    layers = (nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    return nn.Sequential(*layers), lambda model: F.cross_entropy(model(x), y)


def classifier(recurrent: str, embedding_dim: int, hidden_size: int) -> Callable[..., Any]:
    """A text classifier and the loss of 64 Zipf-like documents."""

    def make() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
        model = TextClassifier(
            WORDS, 2, recurrent=recurrent, embedding_dim=embedding_dim, hidden_size=hidden_size
        )
        frequencies = 1.0 / torch.arange(1, WORDS + 1)
        ids = torch.multinomial(frequencies, 64 * LENGTH, replacement=True).view(64, LENGTH) + 1
        lengths, labels = torch.full((64,), LENGTH), torch.randint(0, 2, (64,)).float()
        return model, lambda m: F.binary_cross_entropy_with_logits(m(ids, lengths)[:, 0], labels)

    return make


MODELS: dict[str, tuple[str, Callable[..., Any]]] = {
    "lenet-300-100": ("lenet-300-100", lenet),
    "sru 16/16": ("classifier", classifier("sru", 16, 16)),
    "lstm 300/128": ("classifier", classifier("lstm", 300, 128)),
}


def make_step(make: Callable[..., Any], method: Any) -> Callable[[], None]:
    """Return a function that does one whole training step; method None is dense."""
    torch.manual_seed(0)
    model, loss_of = make()
    if method is not None:
        sparsify(model, method)
        if method.name == "magnitude":
            project(model, keep=prunable_parameters(model) // 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        loss = loss_of(model)
        if method is not None and method.name != "magnitude":
            loss = loss + penalty(model) / 60_000
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def measure(name: str, *, repeats: int) -> dict[str, dict[str, float]]:
    """Smallest milliseconds of the dense and each gated step, taken in turn, and their ratio."""
    family, make = MODELS[name]
    steps = {"dense": make_step(make, None)} | {
        label: make_step(make, method) for label, method in METHODS[family].items()
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for _ in range(repeats + 1):
        for kind, step in steps.items():
            step()  # warms the caches for its own weights
            start = time.perf_counter()
            step()
            seconds[kind].append(time.perf_counter() - start)
    best = {kind: 1e3 * min(found[1:]) for kind, found in seconds.items()}
    return {
        kind: {"step_ms": round(found, 3), "ratio": round(found / best["dense"], 3)}
        for kind, found in best.items()
    }


def main() -> None:
    """Measure all models, print and record them; exit code 1 where a ratio is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/gate_step.json"))
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--models", nargs="+", default=["lenet-300-100", "sru 16/16"], choices=list(MODELS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    metrics = {name: measure(name, repeats=arguments.repeats) for name in arguments.models}
    for name, figures in metrics.items():
        for kind, figure in figures.items():
            print(f"{name}: {kind}: {figure}")
    write_record(
        arguments.out.parent,
        task="training-step",
        data="random images and Zipf-like documents",
        subset=False,
        recipe="gate-step",
        seed=0,
        metrics={"limit": LIMIT, "variational_limit": VARIATIONAL_LIMIT, **metrics},
        name=arguments.out.stem,
    )
    raise SystemExit(
        any(
            figure["ratio"] > (VARIATIONAL_LIMIT if kind.startswith("vd") else LIMIT)
            for figures in metrics.values()
            for kind, figure in figures.items()
        )
    )


if __name__ == "__main__":
    main()
