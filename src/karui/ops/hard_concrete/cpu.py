"""The compiled gates: draw, product with the weight and expected count in one pass, all gradients in another."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from karui import _native
from karui.ops.eager import addresses
from karui.ops.hard_concrete.reference import EPSILON, Law


class Sizes(NamedTuple):
    """What units weigh in the expected count."""

    each: float
    """Elements in every unit, where `by_unit` is None."""
    by_unit: Tensor | None = None
    """Elements in each unit, in its dtype and shape."""


class Pass:
    """Whether the backward pass of a draw is still to come: after it, the count of that draw cannot be used again."""

    __slots__ = ("is_open",)

    def __init__(self) -> None:
        self.is_open = True


def _numbers(law: Law) -> tuple[float, ...]:
    return law.beta, law.gamma, law.zeta, law.low, law.high, EPSILON, law.shift


def _kind(tensor: Tensor) -> tuple[int, int, bool]:
    return tensor.numel(), torch.get_num_threads(), tensor.dtype == torch.float64


class _Draw(torch.autograd.Function):
    """Gates, or a weight times its gates; and the expected number of elements behind open gates."""

    @staticmethod
    def forward(
        ctx: Any,
        log_alpha: Tensor,
        weight: Tensor | None,
        law: Law,
        seed: int,
        block: tuple[int, int] | None,
        sizes: Sizes,
        state: Pass,
    ) -> tuple[Tensor, Tensor]:
        gate = torch.empty_like(log_alpha)
        at_once = weight if block is None else None
        out = None if weight is None else torch.empty_like(weight)
        arrays = addresses(log_alpha, at_once, gate, None if at_once is None else out)
        n, threads, is_double = _kind(log_alpha)
        count = _native.gate_draw(n, threads, is_double, seed, _numbers(law), arrays)
        if sizes.by_unit is None:
            count *= sizes.each
        else:
            count = _native.open_count(n, threads, is_double, law.shift, *addresses(log_alpha, sizes.by_unit))
        if block is not None and weight is not None:
            arrays = addresses(weight, gate, out, None, None)
            _native.gate_blocks(threads, is_double, (*weight.shape, *block), arrays)
        ctx.save_for_backward(log_alpha, weight, gate)
        ctx.law, ctx.block, ctx.sizes, ctx.state = law, block, sizes, state
        ctx.set_materialize_grads(False)
        return gate if out is None else out, torch.tensor(count, dtype=log_alpha.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_count: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        ctx.state.is_open = False
        log_alpha, weight, gate = ctx.saved_tensors
        block, sizes = ctx.block, ctx.sizes
        scale = 0.0 if grad_count is None else grad_count.item()
        of_log_alpha = torch.empty_like(log_alpha)
        if grad is None:
            open_gradient_(of_log_alpha, log_alpha, ctx.law, sizes, scale)
            return of_log_alpha, *[None] * 6
        grad, of_weight = grad.contiguous(), None
        if block is not None and weight is not None:
            of_weight, grad = multiply_blocks(grad, weight, gate, block)
            weight = None
        elif weight is not None:
            of_weight = torch.empty_like(weight)
        by_unit = sizes.by_unit is not None and scale != 0.0
        _native.gate_gradient(
            *_kind(log_alpha),
            _numbers(ctx.law),
            0.0 if by_unit else scale * sizes.each,
            addresses(grad, weight, gate, log_alpha, None if weight is None else of_weight, of_log_alpha),
        )
        if by_unit:
            of_log_alpha += open_gradient_(torch.empty_like(log_alpha), log_alpha, ctx.law, sizes, scale)
        return of_log_alpha, of_weight, *[None] * 5


class _Count(torch.autograd.Function):
    """The expected number of elements behind open gates."""

    @staticmethod
    def forward(ctx: Any, log_alpha: Tensor, law: Law, sizes: Sizes) -> Tensor:
        count = _native.open_count(*_kind(log_alpha), law.shift, *addresses(log_alpha, sizes.by_unit))
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
    _native.open_gradient(*_kind(log_alpha), law.shift, scale, arrays)
    return out


def multiply_blocks(
    grad: Tensor, weight: Tensor, gate: Tensor, block: tuple[int, int], *, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """For weight * gate over blocks: the gradients of the weight, in `out` where given, and of the gates."""
    out = torch.empty_like(weight) if out is None else out
    of_gate = torch.empty_like(gate)
    arrays = addresses(weight, gate, out, grad, of_gate)
    _, threads, is_double = _kind(weight)
    _native.gate_blocks(threads, is_double, (*weight.shape, *block), arrays)
    return out, of_gate


def refuse_second_derivative() -> None:
    """Raise RuntimeError where a backward pass is itself recorded."""
    if torch.is_grad_enabled():
        raise RuntimeError("compiled gates are differentiable once: choose implementation='reference'")


def draw(
    log_alpha: Tensor,
    weight: Tensor | None,
    law: Law,
    seed: int,
    *,
    block: tuple[int, int] | None,
    sizes: Sizes,
    state: Pass,
) -> tuple[Tensor, Tensor]:
    """See `karui.ops.hard_concrete.draw`; float32 or float64 on a CPU, all of one dtype, contiguous."""
    return _Draw.apply(log_alpha, weight, law, seed, block, sizes, state)  # type: ignore[return-value]


def count_open(log_alpha: Tensor, law: Law, sizes: Sizes) -> Tensor:
    """See `karui.ops.hard_concrete.count_open`."""
    return _Count.apply(log_alpha, law, sizes)  # type: ignore[return-value]
