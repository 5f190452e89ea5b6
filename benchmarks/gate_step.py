"""Time of a training step with each kind of gate over that of the dense step, both in one run.

A step is one of `karui train`, whole: batch, loss, penalty, backward, Adam, the check for numbers that are not finite;
for LeNet-300-100 also the average of the weights, as its recipes have it.

Run it from the root of the repository; it writes one record:

    python benchmarks/gate_step.py --out results/gate_step.json

Seconds of one thread, dense and gated steps in turn; the smallest of many, so that a busy machine slows neither.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui.memory import keep_for_training
from karui.report import write_record
from karui.sparse import (
    HardConcrete,
    MagnitudePruning,
    SparseVariationalDropout,
    gate_parameters,
    penalty,
    project,
    prunable_parameters,
    sparsify,
)
from karui.tasks.text_classifier import TextClassifier
from karui.train.device import make_fabric
from karui.train.progress import Progress
from karui.train.run import Run
from karui.train.settings import TrainSettings
from karui.train.state import CheckpointFolder

Made = tuple[nn.Module, Callable[[], Any], Callable[[nn.Module, Any], Tensor]]
"""A model, what gives its next batch, and its mean loss of a batch."""

LIMIT = 1.4
"""Of gates: factors on weights that are there anyway."""
VARIATIONAL_LIMIT = 3.0
"""Of noise on every weight. By local reparametrisation each product has a second one, of squares, with a backward pass
of its own, and each weight a variance with its KL and its share of the optimizer: 2 is what the products alone cost,
where they are all there is, as in LeNet-300-100. A classifier's steps are made of other things: they stay below."""
AVERAGING = {"lenet-300-100": 0.999, "classifier": 0.0}
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


def lenet() -> Made:
    """LeNet-300-100 and batches of 100 out of 60,000 images of bytes."""
    images = torch.randint(0, 256, (60_000, 784), dtype=torch.uint8)
    labels, order = torch.randint(0, 10, (60_000,)), torch.randperm(60_000)
    starts = itertools.cycle(range(0, 60_000, 100))
    layers = (nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))

    def batch() -> tuple[Tensor, Tensor]:
        start = next(starts)
        rows = order[start : start + 100]
        return images[rows], labels[rows]

    return nn.Sequential(*layers), batch, lambda model, b: F.cross_entropy(model(b[0].float() / 255), b[1])


def classifier(recurrent: str, embedding_dim: int, hidden_size: int) -> Callable[..., Any]:
    """A text classifier and the loss of 64 Zipf-like documents."""

    def make() -> Made:
        model = TextClassifier(
            WORDS, 2, recurrent=recurrent, embedding_dim=embedding_dim, hidden_size=hidden_size
        )
        frequencies = 1.0 / torch.arange(1, WORDS + 1)
        ids = torch.multinomial(frequencies, 64 * LENGTH, replacement=True).view(64, LENGTH) + 1
        lengths, labels = torch.full((64,), LENGTH), torch.randint(0, 2, (64,)).float()

        def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            return F.binary_cross_entropy_with_logits(model(batch[0], batch[1])[:, 0], batch[2])

        return model, lambda: (ids, lengths, labels), loss

    return make


MODELS: dict[str, tuple[str, Callable[..., Any]]] = {
    "lenet-300-100": ("lenet-300-100", lenet),
    "sru 16/16": ("classifier", classifier("sru", 16, 16)),
    "lstm 300/128": ("classifier", classifier("lstm", 300, 128)),
}


class Job:
    """What the loop needs of a model with a method: see `karui.train.Task`."""

    num_examples = 60_000

    def __init__(self, made: Made, method: Any) -> None:
        self.model, self.batch_of, self.loss_of = made
        self.is_priced = method is not None and method.name != "magnitude"
        if method is not None:
            sparsify(self.model, method)
            if method.name == "magnitude":
                project(self.model, keep=prunable_parameters(self.model) // 10)

    def steps_per_epoch(self, epoch: int) -> int:  # noqa: ARG002
        """More than are measured."""
        return 1_000_000

    def batch(self, epoch: int, step: int) -> Any:  # noqa: ARG002
        """As the model's loss takes it."""
        return self.batch_of()

    def loss(self, batch: Any) -> Tensor:
        """Mean over the batch."""
        return self.loss_of(self.model, batch)

    def penalty(self) -> Tensor | None:
        """Of gates and noise."""
        return penalty(self.model) if self.is_priced else None

    def evaluate(self, split: str) -> dict[str, float]:  # noqa: ARG002
        """Nothing is."""
        return {}

    def status(self) -> dict[str, float]:
        """Nothing is told."""
        return {}

    def parameter_groups(self, settings: TrainSettings) -> list[dict[str, Any]]:
        """Weights, and gates at a rate of their own where there are some."""
        gates = gate_parameters(self.model) if self.is_priced else []
        taken = {id(gate) for gate in gates}
        rest = [{"params": [p for p in self.model.parameters() if id(p) not in taken]}]
        return [*rest, {"params": list(gates), "lr": 20 * settings.lr}] if gates else rest


def make_step(make: Callable[[], Made], method: Any, *, averaging: float, folder: Path) -> Callable[[], None]:
    """Return a function that does one step of the training loop; method None is dense."""
    torch.manual_seed(0)
    settings = TrainSettings(max_epochs=1, penalty_ramp=0.0, weight_averaging=averaging, threads=1)
    run = Run(Job(make(), method), settings, make_fabric(settings), CheckpointFolder(folder, {}))
    run.progress = Progress(1, quiet=True)
    run.task.model.train()

    def step() -> None:
        run._step(run.state.global_step)  # noqa: SLF001  what is measured
        run.state.global_step += 1

    return step


def measure(name: str, *, repeats: int, folder: Path) -> dict[str, dict[str, float]]:
    """Smallest milliseconds of the dense and each gated step, taken in turn, and their ratio."""
    family, make = MODELS[name]
    steps = {
        label: make_step(make, method, averaging=AVERAGING[family], folder=folder)
        for label, method in ({"dense": None} | METHODS[family]).items()
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
    keep_for_training()  # as `karui train` does
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        metrics = {
            name: measure(name, repeats=arguments.repeats, folder=Path(folder)) for name in arguments.models
        }
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
