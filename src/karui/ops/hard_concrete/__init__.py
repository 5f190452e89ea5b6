"""Hard concrete gates: draws, products with a weight, the expected number of open ones. Derivation in README.md."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from karui.ops.choice import FULL_DTYPES, choose_implementation, is_traced
from karui.ops.hard_concrete import reference
from karui.ops.hard_concrete.counted import Counted, Pass
from karui.ops.hard_concrete.reference import Law
from karui.ops.noise import draw_seed

__all__ = ["Counted", "Law", "count_open", "draw", "draw_with_count", "drawn_linear", "runs_compiled"]

if TYPE_CHECKING:
    from karui.ops.hard_concrete.linear import DrawnLinear

KNOWN = ("reference", "cpp")


def runs_compiled(log_alpha: Tensor, *others: Tensor) -> bool:
    """Tell whether a draw takes the compiled form by itself, with these of a weight's tensors."""
    dtype = log_alpha.dtype
    if dtype not in FULL_DTYPES or is_traced(log_alpha, *others):
        return False
    for tensor in (log_alpha, *others):
        if tensor.dtype != dtype or not tensor.is_cpu or not tensor.is_contiguous():
            return False
    return True


def draw(
    log_alpha: Tensor,
    law: Law,
    *,
    weight: Tensor | None = None,
    block: tuple[int, int] | None = None,
    implementation: str | None = None,
) -> Tensor:
    """Draw gates z of the shape of log_alpha, in [0, 1]; with `weight`, return weight * z in the shape of the weight.

    log_alpha is first brought within the law's bounds, in place. block: (height, width) of the blocks of a matrix
    (R, C) that share a gate, log_alpha then (blocks down, blocks across); None: a gate an element.
    implementation: "reference", "cpp" or None for the fastest at hand.
    Raises ValueError on an unknown implementation, one that cannot take the tensors, or shapes that do not fit.
    """
    _check(log_alpha, weight, block)
    chosen = choose_implementation(log_alpha, implementation, KNOWN, dtypes=FULL_DTYPES)
    if implementation is None and not runs_compiled(log_alpha, *(() if weight is None else (weight,))):
        chosen = "reference"
    if chosen == "cpp":
        weight = None if weight is None else weight.contiguous()
        return draw_with_count(log_alpha, law, weight=weight, block=block).drawn
    with torch.no_grad():
        log_alpha.clamp_(law.low, law.high)
    u = torch.rand(log_alpha.shape, dtype=log_alpha.dtype, device=log_alpha.device)
    gate = reference.gates(log_alpha, u, law)
    if weight is None:
        return gate
    spread = gate if block is None else reference.spread(gate, tuple(weight.shape), block)
    return weight * spread.to(weight.dtype)


def draw_with_count(
    log_alpha: Tensor,
    law: Law,
    *,
    weight: Tensor | None = None,
    block: tuple[int, int] | None = None,
    sizes: float | Tensor = 1.0,
) -> Counted:
    """`draw` in its compiled form, with the expected count of `count_open`: one node of the graph gives both."""
    from karui.ops.hard_concrete import cpu

    state, how = Pass(), cpu.drawing(law, _sizes(sizes, log_alpha), block)
    return Counted(*cpu.draw(log_alpha, weight, how, draw_seed(), state), state)


def drawn_linear(
    log_alpha: Tensor, law: Law, *, block: tuple[int, int] | None = None, sizes: float | Tensor = 1.0
) -> "DrawnLinear":
    """Put together a matrix product with a draw of its weight, to be called at every step.

    block and sizes as in `draw_with_count`; a gate a column (C,) is one a block of (R, 1).
    """
    from karui.ops.hard_concrete import cpu, linear

    return linear.DrawnLinear(cpu.drawing(law, _sizes(sizes, log_alpha), block))


def count_open(
    log_alpha: Tensor, law: Law, sizes: float | Tensor = 1.0, *, implementation: str | None = None
) -> Tensor:
    """Sum over all units of their size times P(z > 0) = sigmoid(log_alpha - shift), ().

    sizes: elements in each unit, in the shape of log_alpha, or the number that all have.
    Raises ValueError on an unknown implementation or one that cannot take the tensor.
    """
    chosen = choose_implementation(log_alpha, implementation, KNOWN, dtypes=FULL_DTYPES)
    if implementation is None and not runs_compiled(log_alpha):
        chosen = "reference"
    if chosen == "cpp":
        from karui.ops.hard_concrete import cpu

        return cpu.count_open(log_alpha.contiguous(), law, _sizes(sizes, log_alpha))
    probability = reference.open_probability(log_alpha, law)
    if isinstance(sizes, Tensor):
        return (probability * sizes.to(probability.dtype)).sum()
    return probability.sum() * sizes


def _sizes(sizes: float | Tensor, like: Tensor):  # noqa: ANN202
    from karui.ops.hard_concrete import cpu

    return cpu.Sizes(1.0, sizes.to(like).contiguous()) if isinstance(sizes, Tensor) else cpu.Sizes(sizes)


def _check(log_alpha: Tensor, weight: Tensor | None, block: tuple[int, int] | None) -> None:
    if weight is None:
        if block is not None:
            raise ValueError("block needs a weight")
        return
    shape = tuple(weight.shape)
    if block is not None:
        if len(shape) != 2:
            raise ValueError(f"blocks need a matrix, got a weight of shape {shape}")
        shape = tuple(-(-length // part) for length, part in zip(shape, block, strict=True))
    if shape != tuple(log_alpha.shape):
        raise ValueError(f"log_alpha must have shape {shape}, got {tuple(log_alpha.shape)}")
