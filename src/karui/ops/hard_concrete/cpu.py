"""The compiled gates: draw, product with the weight and expected count in one pass, all gradients in another."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from karui import _native
from karui.ops.eager import addresses
from karui.ops.hard_concrete.counted import Pass
from karui.ops.hard_concrete.reference import Law


class Sizes(NamedTuple):
    """What units weigh in the expected count."""

    each: float
    """Elements in every unit, where `by_unit` is None."""
    by_unit: Tensor | None = None
    """Elements in each unit, in its dtype and shape."""


def kind(tensor: Tensor) -> tuple[int, int, bool]:
    """(elements, threads, is float64), as the native core takes them."""
    return tensor.numel(), torch.get_num_threads(), tensor.dtype == torch.float64


class Drawing(NamedTuple):
    """What is drawn, and what with it."""

    law: Law
    sizes: Sizes
    block: tuple[int, int] | None
    """(height, width) of the elements of a weight that share a gate; None: a gate an element."""
    numbers: tuple[float, ...]
    """The law as the native core takes it."""


def drawing(law: Law, sizes: Sizes, block: tuple[int, int] | None) -> Drawing:
    """Put together what is drawn."""
    numbers = (law.beta, law.gamma, law.zeta, law.low, law.high, law.shift)
    return Drawing(law, sizes, block, numbers)


def draw_into(
    log_alpha: Tensor, weight: Tensor | None, how: Drawing, seed: int
) -> tuple[Tensor, Tensor | None, float]:
    """Gates, the weight times its gates where one is given, and the expected number of elements behind open gates."""
    gate = torch.empty_like(log_alpha)
    out = None if weight is None else torch.empty_like(weight)
    n, threads, is_double = kind(log_alpha)
    at_once = how.block is None
    arrays = addresses(log_alpha, weight if at_once else None, gate, out if at_once else None)
    count = _native.gate_draw(n, threads, is_double, seed, how.numbers, arrays)
    count = expected(count, log_alpha, how)
    if weight is not None and how.block is not None:
        arrays = addresses(weight, gate, out, None, None)
        _native.gate_blocks(threads, is_double, (*weight.shape, *how.block), arrays)
    return gate, out, count


def expected(open_units: float, log_alpha: Tensor, how: Drawing) -> float:
    """Expected number of elements behind open gates, given that of the open gates."""
    if how.sizes.by_unit is None:
        return open_units * how.sizes.each
    arrays = addresses(log_alpha, how.sizes.by_unit)
    return _native.open_count(*kind(log_alpha), how.law.shift, *arrays)


def gradients(
    grad: Tensor | None,
    weight: Tensor | None,
    gate: Tensor,
    log_alpha: Tensor,
    how: Drawing,
    *,
    scale: float,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of log alpha and of the weight, by what `draw_into` gave (grad) and by its count (scale)."""
    of_log_alpha = torch.empty_like(log_alpha)
    if grad is None:
        return open_gradient_(of_log_alpha, log_alpha, how.law, how.sizes, scale), None
    of_weight = None
    if weight is not None:
        of_weight = torch.empty_like(weight)
        if how.block is not None:
            of_weight, grad = multiply_blocks(grad, weight, gate, how.block, out=of_weight)
            weight = None
    arrays = addresses(grad, weight, gate, log_alpha, None if weight is None else of_weight, of_log_alpha)
    _native.gate_gradient(*kind(log_alpha), how.numbers, each(how, scale), arrays)
    add_by_unit_(of_log_alpha, log_alpha, how, scale)
    return of_log_alpha, of_weight


def each(how: Drawing, scale: float) -> float:
    """What the native gradients add for an open gate: the count's part, but where its units differ."""
    return scale * how.sizes.each if how.sizes.by_unit is None else 0.0


def add_by_unit_(out: Tensor, log_alpha: Tensor, how: Drawing, scale: float) -> None:
    """Add the count's part of the gradient where units differ in their elements."""
    if how.sizes.by_unit is not None and scale != 0.0:
        out += open_gradient_(torch.empty_like(log_alpha), log_alpha, how.law, how.sizes, scale)


class _Draw(torch.autograd.Function):
    """Gates, or a weight times its gates; and the expected number of elements behind open gates."""

    @staticmethod
    def forward(
        ctx: Any, log_alpha: Tensor, weight: Tensor | None, how: Drawing, seed: int, state: Pass
    ) -> tuple[Tensor, Tensor]:
        gate, out, count = draw_into(log_alpha, weight, how, seed)
        ctx.save_for_backward(log_alpha, weight, gate)
        ctx.how, ctx.state = how, state
        ctx.set_materialize_grads(False)
        return gate if out is None else out, torch.scalar_tensor(count, dtype=log_alpha.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_count: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        ctx.state.is_open = False
        log_alpha, weight, gate = ctx.saved_tensors
        grad, scale = None if grad is None else grad.contiguous(), value_of(grad_count)
        return *gradients(grad, weight, gate, log_alpha, ctx.how, scale=scale), None, None, None


class _Count(torch.autograd.Function):
    """The expected number of elements behind open gates."""

    @staticmethod
    def forward(ctx: Any, log_alpha: Tensor, law: Law, sizes: Sizes) -> Tensor:
        count = _native.open_count(*kind(log_alpha), law.shift, *addresses(log_alpha, sizes.by_unit))
        ctx.save_for_backward(log_alpha)
        ctx.law, ctx.sizes = law, sizes
        return torch.tensor(count if sizes.by_unit is not None else count * sizes.each, dtype=log_alpha.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        refuse_second_derivative()
        (log_alpha,) = ctx.saved_tensors
        found = open_gradient_(torch.empty_like(log_alpha), log_alpha, ctx.law, ctx.sizes, grad.item())
        return found, None, None


def open_gradient_(out: Tensor, log_alpha: Tensor, law: Law, sizes: Sizes, scale: float) -> Tensor:
    """Fill `out` with scale times the gradient of the expected count."""
    if sizes.by_unit is None:
        scale *= sizes.each
    arrays = addresses(log_alpha, sizes.by_unit, out)
    _native.open_gradient(*kind(log_alpha), law.shift, scale, arrays)
    return out


def multiply_blocks(
    grad: Tensor, weight: Tensor, gate: Tensor, block: tuple[int, int], *, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """For weight * gate over blocks: the gradients of the weight, in `out` where given, and of the gates."""
    out = torch.empty_like(weight) if out is None else out
    of_gate = torch.empty_like(gate)
    arrays = addresses(weight, gate, out, grad, of_gate)
    _, threads, is_double = kind(weight)
    _native.gate_blocks(threads, is_double, (*weight.shape, *block), arrays)
    return out, of_gate


def value_of(grad_count: Tensor | None) -> float:
    """The gradient by a count, 0 where nothing depends on it."""
    return 0.0 if grad_count is None else grad_count.item()


def refuse_second_derivative() -> None:
    """Raise RuntimeError where a backward pass is itself recorded."""
    if torch.is_grad_enabled():
        raise RuntimeError("compiled gates are differentiable once: choose implementation='reference'")


def draw(
    log_alpha: Tensor, weight: Tensor | None, how: Drawing, seed: int, state: Pass
) -> tuple[Tensor, Tensor]:
    """See `karui.ops.hard_concrete.draw_with_count`; float32 or float64 on a CPU, all of one dtype, contiguous."""
    return _Draw.apply(log_alpha, weight, how, seed, state)  # type: ignore[return-value]


def count_open(log_alpha: Tensor, law: Law, sizes: Sizes) -> Tensor:
    """See `karui.ops.hard_concrete.count_open`."""
    return _Count.apply(log_alpha, law, sizes)  # type: ignore[return-value]
