"""Output layers timed beside their peers: a training step with its update, its memory, one exact query.

N positions, H hidden size, V classes, K samples. A step is what training pays for the output layer: forward, backward
(to the layer and to the hidden vectors) and the update. Whole tables are updated by torch's fused Adam, drawn rows by
row-wise Adagrad.
"""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui.data.lm1b import CLASSES as LM1B_CLASSES
from karui.data.lm1b import lm1b_counts
from karui.errors import UserError
from karui.optim import RowAdagrad
from karui.output.registry import OUTPUTS, build_output

PEERS = ("torch-softmax", "torch-adaptive")
"""What PyTorch brings: Linear + cross_entropy, AdaptiveLogSoftmaxWithLoss."""

METHODS = (*OUTPUTS, *PEERS)
REFERENCE = "full"
WHOLE_TABLE = ("full", "self-normalized")  # every row has a gradient in every step
SAMPLED = ("importance", "importance-target", "sampled", "nce", "negative", "blackout")
BATCHES = 8  # different batches, taken in turn: rows of the last step do not lie in the caches
FEWEST, FEWEST_QUERIES = 2, 3
TOP = 10
CHECK_CLASSES, CHECK_POSITIONS = 300, 12  # sizes at which numbers are compared before any time is taken
CHECK_DIFFERENCE = 2e-5  # nats; float32 sums of a few hundred terms in another order


@dataclass(frozen=True)
class Shape:
    """Sizes of one measurement."""

    classes: int
    hidden: int = 256
    positions: int = 1024
    num_samples: int = 1024
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""


@dataclass
class Side:
    """One layer, ready to train and to answer. `loss` and `query` take (N, H) hidden vectors, `loss` also (N,) ids."""

    name: str
    layer: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    query: Callable[[Tensor], Any]
    optimizers: list[torch.optim.Optimizer]


def counts_of(classes: int) -> tuple[Tensor, str]:
    """Return counts (V,) int64, not sorted, and what they are.

    Those of lm1b_unigram where V is 793,471 and they are here; else Zipf's law, the count of rank r proportional to
    1 / r, at least 1.
    """
    if classes == LM1B_CLASSES and (real := lm1b_counts()) is not None:
        return torch.from_numpy(real), "lm1b_unigram"
    ranks = torch.arange(1, classes + 1, dtype=torch.float64)
    counts = (1e9 / (ranks * (1 / ranks).sum())).long().clamp_(min=1)
    return counts[torch.randperm(classes, generator=torch.Generator().manual_seed(0))], "zipf"


def layer_of(method: str, shape: Shape, counts: Tensor) -> nn.Module:
    """Return the output layer of karui as a user would build it; drawn rows have sparse gradients at every size."""
    options = {"num_samples": shape.num_samples} if method in SAMPLED else None
    sparse: Any = False if method in WHOLE_TABLE else "auto" if method == "adaptive" else True
    return build_output(method, shape.hidden, counts, sparse=sparse, options=options)


def build(method: str, shape: Shape, counts: Tensor) -> Side:
    """Return the side of a method or peer, with its optimizers.

    Raises:
        UserError: no method has this name; the message lists them.
    """
    torch.manual_seed(0)
    if method in PEERS:
        return _torch_softmax(shape) if method == "torch-softmax" else _torch_adaptive(shape, counts)
    check_names([method])
    layer: Any = layer_of(method, shape, counts)
    sparse = list(layer.sparse_parameters())
    rows = {id(parameter) for parameter in sparse}
    dense = [parameter for parameter in layer.parameters() if id(parameter) not in rows]
    optimizers: list[torch.optim.Optimizer] = [RowAdagrad(sparse, lr=0.1)] if sparse else []
    if dense:
        optimizers.append(torch.optim.Adam(dense, lr=1e-3, fused=True))
    k = min(TOP, shape.classes)
    return Side(method, layer, layer, lambda hidden: layer.topk(hidden, k), optimizers)


def check_names(methods: list[str]) -> None:
    """Raise UserError for the first name that is no method, naming those there are."""
    for method in methods:
        if method not in METHODS:
            raise UserError(f"no output layer {method!r}; the methods are {', '.join(METHODS)}")


def _torch_softmax(shape: Shape) -> Side:
    layer = nn.Linear(shape.hidden, shape.classes)
    k = min(TOP, shape.classes)
    return Side(
        "torch-softmax",
        layer,
        lambda hidden, target: F.cross_entropy(layer(hidden), target),
        lambda hidden: F.log_softmax(layer(hidden), -1).topk(k),
        [torch.optim.Adam(layer.parameters(), lr=1e-3, fused=True)],
    )


def _torch_adaptive(shape: Shape, counts: Tensor) -> Side:
    """Torch's module wants ids sorted by count: the ranks are looked up before it is asked, as a user would."""
    cutoffs = published_cutoffs(shape.classes, shape.hidden)
    layer = nn.AdaptiveLogSoftmaxWithLoss(shape.hidden, shape.classes, cutoffs, div_value=4.0)
    rank = torch.empty(shape.classes, dtype=torch.int64)
    rank[counts.argsort(descending=True)] = torch.arange(shape.classes)
    k = min(TOP, shape.classes)
    return Side(
        "torch-adaptive",
        layer,
        lambda hidden, target: layer(hidden, rank[target])[1],
        lambda hidden: layer.log_prob(hidden).topk(k),
        [torch.optim.Adam(layer.parameters(), lr=1e-3, fused=True)],
    )


def published_cutoffs(classes: int, hidden: int) -> list[int]:
    """Return the cut-offs of Grave et al. 2017 for a vocabulary of about this size.

    Penn Treebank 2000; text8 (44 thousand words) 2000 and 10000; One Billion Word 4000, 40000 and 200000.
    """
    wanted = [4000, 40_000, 200_000] if classes > 200_000 else [2000, 10_000] if classes > 20_000 else [2000]
    if classes <= 2 * wanted[0]:
        wanted = [max(1, classes // 4)]
    tails = 1
    while tails < len(wanted) and hidden // 4 ** (tails + 1) >= 1:  # a tail is hidden / 4^i wide
        tails += 1
    return wanted[:tails]


@torch.no_grad()
def check_numbers(methods: list[str], shape: Shape) -> float:
    """Compare a small copy of each layer with the plain mathematics; return the largest difference in nats.

    `log_prob` sums to one, `nll` is its entry of the target, and a flat layer's is log_softmax of its scores (plus the
    log of the noise for negative sampling). Raises UserError where they differ: no time is printed then.
    """
    torch.manual_seed(0)
    classes = min(shape.classes, CHECK_CLASSES)
    counts = counts_of(classes)[0]
    worst = 0.0
    for method in methods:
        if method in PEERS:
            continue
        small = Shape(classes, shape.hidden, CHECK_POSITIONS, min(shape.num_samples, classes))
        layer: Any = layer_of(method, small, counts)
        hidden = torch.randn(CHECK_POSITIONS, shape.hidden)
        target = torch.randint(classes, (CHECK_POSITIONS,))
        log_prob = layer.log_prob(hidden)
        differences = [
            log_prob.logsumexp(-1).abs().max(),
            (layer.nll(hidden, target, reduction="none") + log_prob.gather(1, target[:, None])[:, 0])
            .abs()
            .max(),
        ]
        if method in (*WHOLE_TABLE, *SAMPLED):
            scores = F.linear(hidden, layer.weight, layer.bias)
            if method == "negative":
                scores = scores + layer.noise.log_prob(torch.arange(classes))
            differences.append((F.log_softmax(scores, -1) - log_prob).abs().max())
        found = float(torch.stack([each.double() for each in differences]).max())
        if not found <= CHECK_DIFFERENCE:
            raise UserError(
                f"{method} differs from the plain mathematics by {found:.1e} nats, {CHECK_DIFFERENCE:.0e} is allowed: "
                "no times for wrong numbers; run the tests of karui.output"
            )
        worst = max(worst, found)
    return worst


class Stepper:
    """Training steps of one side on batches of its own, taken in turn."""

    def __init__(self, side: Side, shape: Shape, counts: Tensor) -> None:
        self.side = side
        generator = torch.Generator().manual_seed(1)
        cdf = counts.double().cumsum(0)
        draws = torch.rand(BATCHES, shape.positions, generator=generator, dtype=torch.float64) * cdf[-1]
        self.targets = torch.searchsorted(cdf, draws, right=True).clamp_(max=shape.classes - 1)
        self.hidden = torch.randn(BATCHES, shape.positions, shape.hidden, generator=generator)
        self.done = 0

    def step(self) -> tuple[float, float]:
        """Train one step; return its seconds, and those of the update alone."""
        number = self.done % BATCHES
        hidden = self.hidden[number].requires_grad_()
        target = self.targets[number]
        begin = time.perf_counter()
        loss = self.side.loss(hidden, target)
        loss.backward()
        middle = time.perf_counter()
        for optimizer in self.side.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        end = time.perf_counter()
        self.done += 1
        return end - begin, end - middle

    @torch.no_grad()
    def query(self) -> float:
        """Answer one query, the ten best words of one hidden vector; return its seconds."""
        number = self.done % (BATCHES * self.hidden.shape[1])
        hidden = self.hidden.view(-1, self.hidden.shape[-1])[number : number + 1]
        begin = time.perf_counter()
        self.side.query(hidden)
        self.done += 1
        return time.perf_counter() - begin


def measure(
    method: str, shape: Shape, *, repeats: int, seconds: float, peak: Callable[[], float] | None = None
) -> dict[str, Any]:
    """Return the row of one method: medians and minima in milliseconds.

    seconds: a side that has used this much time sits out the remaining repeats; two steps are always measured. peak:
    returns the megabytes that training has needed so far; asked between the steps and the queries.
    """
    counts, kind = counts_of(shape.classes)
    gc.collect()
    if peak is not None:
        peak()  # from here on
    stepper = Stepper(build(method, shape, counts), shape, counts)
    stepper.step()  # warm up, and let the optimizers make their state
    steps: list[tuple[float, float]] = []
    while len(steps) < repeats and (len(steps) < FEWEST or sum(total for total, _ in steps) < seconds):
        steps.append(stepper.step())
    needed = None if peak is None else peak()
    stepper.query()
    queries: list[float] = []
    while len(queries) < repeats and (len(queries) < FEWEST_QUERIES or sum(queries) < seconds / 4):
        queries.append(stepper.query())
    return {
        "method": method,
        "classes": shape.classes,
        "counts": kind,
        "parameters": sum(parameter.numel() for parameter in stepper.side.layer.parameters()),
        "steps": len(steps),
        "step_ms": _ms(total for total, _ in steps),
        "fastest_step_ms": round(1e3 * min(total for total, _ in steps), 4),
        "optimizer_ms": _ms(update for _, update in steps),
        "query_ms": _ms(queries),
        "peak_mb": None if needed is None else round(needed, 1),
    }


def _ms(values: Any) -> float:
    return round(1e3 * statistics.median(values), 4)


def megabytes_needed(method: str, shape: Shape) -> float:
    """Return about how many megabytes a training step takes at its highest point: what a machine must have free."""
    table = 4e-6 * shape.classes * (shape.hidden + 1)
    if method == "torch-softmax":
        return 4 * table + 3 * 4e-6 * shape.positions * shape.classes
    return (4.5 if method in (*WHOLE_TABLE, "torch-adaptive") else 1.5) * table + 300
